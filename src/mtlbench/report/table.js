// The table of results: its columns, their order, best and second.

const PAGE = 100;
const VIEWS = [["chosen", "rows of the tables"], ["all", "all settings"], ["runs", "single runs"]];
let rowsShown = PAGE;

// {key, head, value: entry -> number or text or null, text: entry -> text, better: "higher" | "lower" | null}
function columnsOf(view, entries) {
  const single = view === "runs";
  const plain = (key, head, value) => ({ key, head, value, text: (entry) => (known(value(entry)) ? String(value(entry)) : "-"), better: null });
  const stored = (key, head, digits, better, value) => {
    const found = (entry) => (whole(entry) && !single ? value(entry.setting) : null); // of all seeds, or not at all
    return { key, head, better, value: found, text: (entry) => number(found(entry), digits) };
  };
  const columns = [];
  if (single) {
    columns.push(plain("seed", "seed", (entry) => report.runs[entry.ids[0]].seed));
    columns.push(plain("state", "state", (entry) => report.runs[entry.ids[0]].state));
  }
  columns.push(plain("optimizer", "optimizer", (entry) => entry.setting.optimizer));
  columns.push({ ...plain("lr", "learning rate", (entry) => entry.setting.lr), text: (entry) => rateText(entry.setting.lr) });
  for (const metric of current().metrics) {
    columns.push(measured(metric.name, headOf(metric), metric.higher_is_better, entries, (entry) => metricOf(entry, metric.name)));
  }
  for (const [form, { head, higher }] of Object.entries(FORMS)) {
    columns.push(measured(`delta ${form}`, head, higher, entries, (entry) => deltaOf(entry, form), 2));
  }
  columns.push({
    key: "pareto",
    head: single ? "Pareto-optimal" : "Pareto-optimal runs",
    better: "higher",
    value: (entry) => paretoOf(entry),
    text: (entry) => (known(paretoOf(entry)) ? (single ? (paretoOf(entry) ? "yes" : "no") : String(paretoOf(entry))) : "-"),
  });
  if (!single) {
    const interval = (entry) => (whole(entry) ? entry.setting.interval[report.form] : [null, null]);
    columns.push({
      key: "interval",
      head: `95 % of ${FORMS[report.form].head}`,
      better: FORMS[report.form].higher ? "higher" : "lower",
      value: (entry) => interval(entry)[0],
      text: (entry) => (known(interval(entry)[0]) ? `[${interval(entry).map((value) => number(value, 2)).join(", ")}]` : "-"),
    });
    columns.push(stored("rank", "rank among all ↓", 2, "lower", (setting) => setting.rank));
    columns.push(stored("validation", `validation ${FORMS[report.form].head}`, 2, FORMS[report.form].higher ? "higher" : "lower", (setting) => setting.validation));
    columns.push(stored("optimism", "optimism of best test epoch [%]", 2, null, (setting) => setting.optimism));
    columns.push(stored("seconds", "s/step ÷ equal", 2, null, (setting) => setting.seconds));
    columns.push(stored("weights_sum", "Σ weights", 2, null, (setting) => setting.weights_sum));
    columns.push({ key: "n", head: "n", better: null, value: (entry) => finished(entry).length, text: countOf });
  }
  return columns;
}

function measured(key, head, higher, entries, find, digits = null) {
  const cached = new Map(entries.map((entry) => [entry, find(entry)]));
  const places = digits ?? decimals([...cached.values()].map((found) => found?.mean));
  return {
    key, head, better: higher ? "higher" : "lower", marks: true,
    value: (entry) => cached.get(entry)?.mean ?? null,
    text: (entry) => {
      const found = cached.get(entry);
      if (!found) return "-";
      return number(found.mean, places) + (known(found.std) ? ` ± ${number(found.std, places)}` : "");
    },
  };
}

function paretoOf(entry) {
  const counting = entry.ids.map((id) => report.runs[id].pareto).filter(known);
  return counting.length ? counting.filter((one) => one.full).length : null;
}

function countOf(entry) {
  if (whole(entry)) return entry.setting.n;
  const others = counted(entry.ids).filter(([state]) => state !== "done").map(([state, count]) => `${count} ${state}`);
  return `${finished(entry).length}/${entry.ids.length}${others.length ? `: ${others.join(", ")}` : ""}`;
}

// What is missing goes last, whatever the direction.
function sorted(entries, columns) {
  if (!choice.sort) return entries;
  const { key, descending } = choice.sort;
  const value = key === "label" ? (entry) => entry.setting.label : columns.find((column) => column.key === key)?.value;
  if (!value) return entries; // sorted by a column that this view does not have
  const present = entries.filter((entry) => known(value(entry)));
  present.sort((a, b) => (descending ? -1 : 1) * compared(value(a), value(b)));
  return [...present, ...entries.filter((entry) => !known(value(entry)))];
}

// Of the rows that are no baselines: {entry: "best" | "second"}, where not all are alike.
function marksOf(column, entries) {
  const marks = new Map();
  if (!column.marks) return marks;
  const competing = entries.filter((entry) => entry.setting.single_task === null && known(column.value(entry)));
  const order = [...new Set(competing.map((entry) => column.value(entry)))].sort(compared);
  if (column.better === "higher") order.reverse();
  for (const entry of order.length > 1 ? competing : []) {
    const place = order.indexOf(column.value(entry));
    if (place < 2) marks.set(entry, place ? "second" : "best");
  }
  return marks;
}

function drawTable() {
  const entries = entriesOf(choice.view);
  const columns = columnsOf(choice.view, entries);
  const marks = columns.map((column) => marksOf(column, entries));
  const rows = sorted(entries, columns);
  const first = { key: "label", head: choice.view === "runs" ? "setting and run" : "setting", better: null };
  const body = element("tbody", {}, rows.slice(0, rowsShown).map((entry) => tableRow(entry, columns, marks)));
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && getSelection().isCollapsed) open(rows[row.rowIndex - 1]);
  });
  const table = element("table", { id: "results-table" },
    element("caption", { class: "unseen" }, `Test results, ${plural(rows.length, "row")}. The button at the start of a row opens its runs.`),
    element("thead", {}, element("tr", {}, [first, ...columns].map(sortableHead))), body);
  const more = rows.length - rowsShown;
  byId("rows").replaceChildren(
    scrolling("Results", table),
    element("p", { class: "hint" },
      `${plural(rows.length, "row")}${more > 0 ? `, the first ${rowsShown} shown` : ""}. ± is the standard deviation over seeds (ddof 1). Best bold, second underlined, of the rows that pass the filters; single_task does not compete. Click a number for its runs, their configuration and what repeats each.${choice.hidden.seed.size ? " With a choice of seeds, what was computed of all seeds is left out." : ""} `,
      more > 0 ? element("button", { type: "button", onclick: () => { rowsShown = Infinity; drawTable(); } }, `Show all ${rows.length.toLocaleString("en")}`) : null),
  );
}

function open(entry) {
  openSetting(entry.setting, choice.view === "runs" ? entry.ids[0] : null);
}

function tableRow(entry, columns, marks) {
  const name = choice.view === "runs" ? `${entry.setting.label} ${entry.ids[0]}` : entry.setting.label;
  const row = element("tr", {}, element("th", { scope: "row" }, element("button", { type: "button", class: "row" }, name)));
  columns.forEach((column, i) => {
    const cell = document.createElement("td");
    cell.textContent = column.text(entry);
    const mark = marks[i].get(entry);
    if (mark) cell.className = mark;
    row.append(cell);
  });
  return row;
}

function sortableHead(column) {
  const active = choice.sort?.key === column.key;
  const direction = active ? (choice.sort.descending ? "descending" : "ascending") : null;
  const button = element("button", { type: "button", class: "sort", "data-key": column.key }, column.head, element("span", { "aria-hidden": "true" }, active ? (choice.sort.descending ? " ▼" : " ▲") : ""));
  button.addEventListener("click", () => {
    choice.sort = { key: column.key, descending: active ? !choice.sort.descending : column.better === "higher" };
    drawTable();
    const again = [...document.querySelectorAll("button.sort")].find((other) => other.dataset.key === column.key);
    again.focus();
    say(`Sorted by ${column.head}, ${choice.sort.descending ? "highest" : "lowest"} first.`);
  });
  return element("th", { scope: "col", "aria-sort": direction }, button);
}

function setUpTable() {
  const views = VIEWS.map(([key, text]) => {
    const input = element("input", { type: "radio", name: "view", value: key, checked: key === choice.view });
    input.addEventListener("change", () => { choice.view = key; rowsShown = PAGE; drawTable(); });
    return element("label", { class: "chip" }, input, text);
  });
  byId("table").replaceChildren(
    element("fieldset", { class: "controls" }, element("legend", {}, "Show"), views),
    element("div", { id: "rows" }),
  );
}
