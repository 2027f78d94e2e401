// The report, what the reader has chosen, and the numbers that follow from both. Nothing here touches the page.
"use strict";

const report = JSON.parse(document.getElementById("data").textContent);

const choice = {
  comparison: 0,
  view: "chosen", // chosen: the tables' rows; all: every setting; runs: every seed by itself
  hidden: { method: new Set(), optimizer: new Set(), seed: new Set() },
  text: "",
  sort: null, // {key, descending}
};

const FORMS = {
  metrics: { head: "Δm metrics ↓ [%]", higher: false },
  tasks: { head: "Δm tasks ↑ [%]", higher: true },
};

const current = () => report.comparisons[choice.comparison];
const methodOf = (setting) => (setting.single_task === null ? setting.method : "single_task");
const known = (value) => value !== null && value !== undefined;
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function deviation(values) { // ddof 1
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
}

function headOf(metric) {
  const unit = metric.unit ? ` [${metric.unit}]` : "";
  return `${metric.name.replace("/", " ")} ${metric.higher_is_better ? "↑" : "↓"}${unit}`;
}

function compared(first, second) { // numbers by value, texts by their letters
  return first < second ? -1 : first > second ? 1 : 0;
}

// What can be chosen of "method", "optimizer" or "seed" in this comparison.
function facet(name) {
  const found = new Set();
  for (const setting of current().settings) {
    if (name === "method") found.add(methodOf(setting));
    if (name === "optimizer") found.add(setting.optimizer);
    if (name === "seed") setting.runs.forEach((id) => found.add(report.runs[id].seed));
  }
  found.delete("single_task");
  const single = name === "method" && current().settings.some((setting) => setting.single_task !== null);
  return [...(single ? ["single_task"] : []), ...[...found].sort(compared)];
}

// The settings that pass the filters, each with the ids of those of its runs that do.
function passing(wanted) {
  const { method, optimizer, seed } = choice.hidden;
  const text = choice.text.trim().toLowerCase();
  const entries = [];
  for (const setting of current().settings) {
    if (method.has(methodOf(setting)) || optimizer.has(setting.optimizer) || (wanted && !wanted(setting))) continue;
    const said = text && setting.label.toLowerCase().includes(text);
    const ids = setting.runs.filter(
      (id) => !seed.has(report.runs[id].seed) && (!text || said || id.startsWith(text)),
    );
    if (ids.length) entries.push({ setting, ids });
  }
  return entries;
}

const chosenOnly = (setting) => setting.chosen;

// The rows of the table in this view.
function entriesOf(view) {
  if (view === "chosen") return passing(chosenOnly);
  const all = passing();
  return view === "all" ? all : all.flatMap(({ setting, ids }) => ids.map((id) => ({ setting, ids: [id] })));
}

const whole = (entry) => entry.ids.length === entry.setting.runs.length;
const finished = (entry) => entry.ids.map((id) => report.runs[id]).filter((run) => run.state === "done");

function spread(values) {
  if (!values.length || values.some((value) => !known(value))) return null;
  return { mean: mean(values), std: values.length > 1 ? deviation(values) : null, low: Math.min(...values), high: Math.max(...values) };
}

// Mean, deviation and range of a test metric over the finished runs of an entry; null where it is undefined.
const metricOf = (entry, name) => spread(finished(entry).map((run) => run.values.test?.[name]));
const deltaOf = (entry, form) => spread(finished(entry).map((run) => run.delta[form]));

// How many decimals show about four digits of the largest: 96.41, 3.012, 0.0512.
function decimals(values) {
  const largest = Math.max(0, ...values.filter(known).map(Math.abs));
  return largest >= 1 ? Math.max(0, 4 - String(Math.trunc(largest)).length) : 4;
}

function number(value, digits) {
  if (!known(value) || !Number.isFinite(value)) return "-";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text;
}

// How many runs of each state, most frequent first: [["done", 415], ...].
function counted(ids) {
  const counts = new Map();
  for (const id of ids) counts.set(report.runs[id].state, (counts.get(report.runs[id].state) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || compared(a[0], b[0]));
}

// 0.0001 as 1e-4: rates stand side by side.
function rateText(value) {
  if (!known(value)) return "-";
  return value > 0 && value < 1e-3 ? value.toExponential().replace(/(\.\d\d)\d*/, "$1") : String(value);
}

const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
