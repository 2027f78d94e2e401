// The figures: what each shows of the runs that pass the filters.

const picked = { response: "delta", curves: "test", colour: "optimizer", x: null, y: null };
const CURVES = { test: "test metrics", val: "validation metrics", losses: "training losses", gradient_norms: "gradient norms", weights_sum: "sum of the weights", lr: "learning rate" };

const methodLooks = () => looks(facet("method"));
const optimizerLooks = () => looks(facet("optimizer"));

function labelOf(entry) {
  return entry.setting.single_task === null ? entry.setting.group : `single_task ${entry.setting.single_task}`;
}

// Looks by row, of all rows of this comparison.
function rowLooks() {
  const names = [...new Set(current().settings.filter((one) => one.single_task === null).map((one) => one.group))];
  const singles = [...new Set(current().settings.filter((one) => one.single_task !== null).map((one) => `single_task ${one.single_task}`))];
  return looks([...names, ...singles]);
}

function metricNamed(name) {
  return current().metrics.find((metric) => metric.name === name);
}

// The runs that count: all test metrics defined, within the sweep's bounds.
function countedRuns() {
  return passing((setting) => setting.single_task === null).flatMap(({ setting, ids }) =>
    ids.filter((id) => report.runs[id].pareto).map((id) => ({ id, setting, run: report.runs[id] })));
}

const clickRun = (params) => params.data?.id && openRun(params.data.id);

function runTip({ id, setting, run }) {
  const lines = current().metrics.map((metric) => ["transparent", `${headOf(metric)}: ${plainly(run.values.test[metric.name])}`]);
  return tooltip(`${setting.label}, seed ${run.seed}`, [...lines, ["transparent", run.pareto.full ? "Pareto-optimal" : "not Pareto-optimal"], ["transparent", id]]);
}

// Elich et al. 2023, Figure 2.
function parallel() {
  const runs = countedRuns();
  const metrics = current().metrics;
  if (runs.length < 2 || metrics.length < 2) return null;
  const look = picked.colour === "method" ? methodLooks() : optimizerLooks();
  const of = (one) => (picked.colour === "method" ? methodOf(one.setting) : one.setting.optimizer);
  const rates = runs.every(({ setting }) => setting.lr > 0);
  const dimensions = [
    ...(rates ? [{ name: "learning rate", log: true, value: ({ setting }) => setting.lr }] : []),
    ...metrics.map((metric) => ({ name: headOf(metric), inverse: !metric.higher_is_better, value: ({ run }) => run.values.test[metric.name] })),
    { name: FORMS[report.form].head, inverse: !FORMS[report.form].higher, value: ({ run }) => run.delta[report.form] },
  ].filter(({ value }) => runs.every((one) => known(value(one))));
  const names = facet(picked.colour).filter((name) => runs.some((one) => of(one) === name));
  const series = [false, true].flatMap((full) => names.map((name) => ({
    type: "parallel", name, color: look(name).colour, z: full ? 3 : 2,
    lineStyle: { color: look(name).colour, width: full ? 2 : 1, opacity: full ? 0.95 : Math.max(0.08, Math.min(0.35, 60 / runs.length)), type: full ? look(name).dash : "solid" },
    data: runs.filter((one) => of(one) === name && one.run.pareto.full === full).map((one) => ({ value: dimensions.map(({ value }) => value(one)), id: one.id, one })),
  })));
  const option = {
    parallel: { left: 50, right: 70, top: 44, bottom: 24 },
    parallelAxis: dimensions.map(({ name, inverse, log }, dim) => axis({
      dim, name, inverse, type: log ? "log" : "value", min: "dataMin", max: "dataMax", nameLocation: inverse ? "start" : "end", nameGap: 14,
      nameTextStyle: { color: tone("text"), width: 140, overflow: "break", fontSize: 12 }, splitLine: { show: false },
      axisLabel: { color: tone("text"), formatter: log ? rateText : plainly, hideOverlap: true, fontSize: 11, backgroundColor: tone("ground"), padding: [0, 2] },
      areaSelectStyle: { color: tone("accent"), borderColor: tone("accent"), opacity: 0.3, width: 18 },
    })),
    tooltip: { ...TIP, trigger: "item", formatter: ({ data }) => runTip(data.one) },
    series,
  };
  return {
    legend: names.map((name) => ({ text: name, ...look(name), symbol: null })),
    panels: [{ option, wide: true, height: 400, width: 150 * dimensions.length, many: runs.length, click: clickRun }],
    numbers: runNumbers(runs),
    remark: `${plural(runs.length, "run")}, ${runs.filter(({ run }) => run.pareto.full).length} of them Pareto-optimal.`,
  };
}

function runNumbers(runs) {
  const best = [...runs].sort((a, b) => Number(b.run.pareto.full) - Number(a.run.pareto.full));
  return {
    head: ["setting", "seed", ...current().metrics.map(headOf), "Pareto-optimal"],
    rows: best.map(({ setting, run }) => [setting.label, String(run.seed), ...current().metrics.map((metric) => plainly(run.values.test[metric.name])), run.pareto.full ? "yes" : "no"]),
  };
}

// Of points [[x, y], ...] those that no other dominates, by x. turn: 1 where higher is better, -1 where lower is.
function front(points, [turnX, turnY]) {
  const order = [...points].sort((a, b) => turnX * (b.value[0] - a.value[0]) || turnY * (b.value[1] - a.value[1]));
  const kept = [];
  for (const point of order) {
    const last = kept.at(-1);
    if (!last || turnY * point.value[1] > turnY * last.value[1] || (point.value[0] === last.value[0] && point.value[1] === last.value[1])) kept.push(point);
  }
  return kept;
}

function axesPicked() {
  const names = current().metrics.map((metric) => metric.name);
  const firsts = names.filter((name, i) => names.findIndex((other) => other.split("/")[0] === name.split("/")[0]) === i);
  if (!names.includes(picked.x)) picked.x = firsts[0];
  if (!names.includes(picked.y)) picked.y = firsts[1] ?? names[1] ?? names[0];
  return [metricNamed(picked.x), metricNamed(picked.y)];
}

function pareto() {
  const runs = countedRuns();
  if (!runs.length || current().metrics.length < 2) return null;
  const axes = axesPicked();
  const turns = axes.map((metric) => (metric.higher_is_better ? 1 : -1));
  const byMethod = picked.colour === "method";
  const [colours, symbols] = byMethod ? [methodLooks(), optimizerLooks()] : [optimizerLooks(), methodLooks()];
  const of = ({ setting }) => (byMethod ? [methodOf(setting), setting.optimizer] : [setting.optimizer, methodOf(setting)]);
  const points = runs.map((one) => ({ value: axes.map((metric) => one.run.values.test[metric.name]), id: one.id, one }));
  const names = facet(picked.colour).filter((name) => points.some(({ one }) => of(one)[0] === name));
  const others = facet(byMethod ? "optimizer" : "method").filter((name) => points.some(({ one }) => of(one)[1] === name));
  const series = names.flatMap((name) => {
    const mine = points.filter(({ one }) => of(one)[0] === name);
    const { colour, dash } = colours(name);
    return [
      {
        type: "scatter", name, color: colour,
        data: mine.map((point) => ({ ...point, symbol: symbols(of(point.one)[1]).symbol, symbolSize: point.one.run.pareto.full ? 12 : 7, itemStyle: { opacity: point.one.run.pareto.full ? 1 : points.length > MANY ? 0.25 : 0.6 } })),
      },
      { type: "line", name, color: colour, data: front(mine, turns).map(({ value }) => value), showSymbol: false, silent: true, lineStyle: { width: 2, type: dash }, z: 3, tooltip: { show: false } },
    ];
  });
  const option = {
    grid: { left: 70, right: 20, top: 16, bottom: 48 },
    xAxis: axis({ name: headOf(axes[0]) }),
    yAxis: axis({ name: headOf(axes[1]), nameGap: 46 }),
    tooltip: { ...TIP, trigger: "item", formatter: ({ data }) => runTip(data.one) },
    dataZoom: [{ type: "inside", zoomOnMouseWheel: "ctrl", filterMode: "none" }, { type: "inside", yAxisIndex: 0, zoomOnMouseWheel: "ctrl", filterMode: "none" }],
    series,
  };
  return {
    legend: [
      ...names.map((name) => ({ text: name, ...colours(name), symbol: null })),
      ...others.map((name) => ({ text: name, colour: tone("text"), dash: null, symbol: symbols(name).symbol })),
    ],
    panels: [{ option, wide: true, height: 460, many: points.length, click: clickRun }],
    numbers: runNumbers(runs),
  };
}

function colourControl(again) {
  return selectElement("Colour", [["optimizer", "by optimizer"], ["method", "by method"]], picked.colour, (value) => {
    picked.colour = value;
    drawFigure(figures.find(({ id }) => id === "parallel"));
    drawFigure(figures.find(({ id }) => id === "pareto"));
    again();
  });
}

function paretoControls(again) {
  axesPicked();
  const options = current().metrics.map((metric) => [metric.name, headOf(metric)]);
  const pick = (name, key) => selectElement(name, options, picked[key], (value) => { picked[key] = value; again(); });
  return [pick("Across", "x"), pick("Up", "y"), colourControl(again)];
}

// By optimizer: {row: {rate: entry}}; of a row's settings with one rate and optimizer the one that validation prefers.
function byRate() {
  const turn = FORMS[report.form].higher ? 1 : -1;
  const score = ({ setting }) => (known(setting.validation) ? turn * setting.validation : -Infinity);
  const found = new Map();
  for (const entry of passing((setting) => setting.single_task === null || picked.response !== "delta")) {
    if (!(entry.setting.lr > 0)) continue;
    const rows = found.get(entry.setting.optimizer) ?? new Map();
    const rates = rows.get(labelOf(entry)) ?? new Map();
    const before = rates.get(entry.setting.lr);
    if (!before || score(entry) > score(before)) rates.set(entry.setting.lr, entry);
    found.set(entry.setting.optimizer, rows.set(labelOf(entry), rates));
  }
  return [...found].sort((a, b) => compared(a[0], b[0]));
}

function response() {
  const metric = metricNamed(picked.response);
  const find = (entry) => (metric ? metricOf(entry, metric.name) : deltaOf(entry, report.form));
  const head = metric ? headOf(metric) : FORMS[report.form].head;
  const higher = metric ? metric.higher_is_better : FORMS[report.form].higher;
  const look = rowLooks();
  const numbers = [], shown = new Set();
  const lines = byRate().map(([optimizer, rows]) => [optimizer, [...rows].map(([name, rates]) => {
    const points = [], lost = [];
    for (const [x, entry] of [...rates].sort((a, b) => a[0] - b[0])) {
      const value = find(entry);
      if (value) {
        points.push({ x, ...value, entry });
        numbers.push([name, optimizer, rateText(x), plainly(value.mean), plainly(value.low), plainly(value.high), `${finished(entry).length}/${entry.ids.length}`]);
      }
      if (finished(entry).length < entry.ids.length) lost.push({ x, entry });
    }
    if (points.length) shown.add(name);
    return { name, look: look(name), points, lost };
  })]);
  const every = lines.flatMap(([, rows]) => rows.flatMap(({ points }) => points));
  if (new Set(every.map(({ x }) => x)).size < 2) return null;
  const squashed = !metric && every.some(({ low, high }) => Math.max(Math.abs(low), Math.abs(high)) > 3 * LINEAR);
  const x = { name: "learning rate", log: true, more: { axisLabel: { color: tone("text"), formatter: rateText, hideOverlap: true } } };
  return {
    legend: [...shown].map((name) => ({ text: name, ...look(name) })),
    panels: lines.map(([optimizer, rows]) => linePanel({ title: optimizer, lines: rows, x, y: { name: head, higher, squashed } })),
    numbers: { head: ["row", "optimizer", "learning rate", `mean ${head}`, "least", "most", "finished"], rows: numbers },
    remark: squashed ? `The axis of Δm is linear within ±${LINEAR} and logarithmic beyond.` : "",
  };
}

function responseControls(again) {
  const options = [["delta", FORMS[report.form].head], ...current().metrics.map((metric) => [metric.name, headOf(metric)])];
  if (!options.some(([key]) => key === picked.response)) picked.response = "delta";
  return [selectElement("Show", options, picked.response, (value) => { picked.response = value; again(); })];
}

// A curve's mean and range over the finished runs of an entry, by epoch.
function curve(entry, column, runs = finished(entry)) {
  const by = new Map();
  for (const { curves } of runs) {
    curves?.[column]?.forEach((value, i) => known(value) && by.set(curves.epoch[i], [...(by.get(curves.epoch[i]) ?? []), value]));
  }
  return [...by].sort((a, b) => a[0] - b[0]).map(([x, values]) => ({ x, ...spread(values), entry }));
}

function columnsHeld(entries, prefix) {
  const held = new Set();
  for (const entry of entries) {
    for (const run of finished(entry)) Object.keys(run.curves ?? {}).forEach((column) => column.split(":")[0] === prefix && held.add(column));
  }
  const order = current().metrics.map((metric) => metric.name);
  const place = (column) => order.indexOf(column.slice(prefix.length + 1));
  return [...held].sort((a, b) => place(a) - place(b) || compared(a, b));
}

function columnHead(column) {
  const [prefix, ...rest] = column.split(":");
  const metric = metricNamed(rest.join(":"));
  if (metric) return headOf(metric);
  return rest.length ? `${rest.join(":")} ${{ losses: "training loss", weights: "weight", gradient_norms: "gradient norm" }[prefix] ?? prefix}` : CURVES[prefix] ?? prefix;
}

function lastNumbers(panels) {
  const rows = panels.flatMap(({ title, lines }) => lines.filter(({ points }) => points.length).map(({ name, points }) => {
    const last = points.at(-1);
    return [title, name, String(last.x), plainly(last.mean), plainly(last.low), plainly(last.high)];
  }));
  return { head: ["panel", "line", "last epoch", "mean", "least", "most"], rows };
}

function training() {
  const entries = passing(chosenOnly);
  const look = rowLooks();
  const panels = columnsHeld(entries, picked.curves).map((column) => {
    const lines = entries.map((entry) => ({ name: labelOf(entry), look: look(labelOf(entry)), points: curve(entry, column) })).filter(({ points }) => points.length);
    return { title: columnHead(column), lines, x: { name: "epoch" }, y: { name: columnHead(column) }, marks: false };
  });
  if (!panels.some(({ lines }) => lines.some(({ points }) => points.length > 1))) return null;
  const names = [...new Set(panels.flatMap(({ lines }) => lines.map(({ name }) => name)))];
  return { legend: names.map((name) => ({ text: name, ...look(name), symbol: null })), panels: panels.map(linePanel), numbers: lastNumbers(panels) };
}

function trainingControls(again) {
  const entries = passing(chosenOnly);
  const options = Object.entries(CURVES).filter(([key]) => columnsHeld(entries, key).length);
  if (options.length && !options.some(([key]) => key === picked.curves)) picked.curves = options[0][0];
  return options.length ? [selectElement("Show", options, picked.curves, (value) => { picked.curves = value; again(); })] : [];
}

function weights() {
  const entries = passing((setting) => setting.chosen && setting.single_task === null);
  const columns = columnsHeld(entries, "weights");
  const look = looks(columns);
  const panels = entries.map((entry) => ({
    title: labelOf(entry), x: { name: "epoch" }, y: { name: "weight" }, marks: false,
    lines: columns.map((column) => ({ name: column.slice("weights:".length), look: look(column), points: curve(entry, column) })).filter(({ points }) => points.length),
  })).filter(({ lines }) => lines.some(({ points }) => points.length > 1));
  if (!panels.length) return null;
  return {
    legend: columns.map((column) => ({ text: column.slice("weights:".length), ...look(column), symbol: null })),
    panels: panels.map(linePanel), numbers: lastNumbers(panels),
  };
}

// In the dialog: a line for each seed.
function dialogCurves(holder, setting, metrics) {
  const entry = { setting, ids: setting.runs };
  const seeds = setting.runs.filter((id) => report.runs[id].curves);
  if (!seeds.length) {
    holder.append(element("p", {}, "The curves of these runs are not in this page; they are in the metrics.jsonl of each run's folder."));
    return;
  }
  const look = looks(facet("seed").map(String));
  const prefixes = ["losses", "weights", "gradient_norms"];
  const columns = [...metrics.map((metric) => `test:${metric.name}`), ...prefixes.flatMap((prefix) => columnsHeld([entry], prefix))];
  const legend = seeds.map((id) => ({ text: `seed ${report.runs[id].seed}`, ...look(String(report.runs[id].seed)), symbol: null }));
  const panels = element("div", { class: "panels" });
  holder.append(element("ul", { class: "legend" }, legend.map(legendItem)), panels);
  for (const column of columns) {
    const lines = seeds.map((id) => ({ name: `seed ${report.runs[id].seed}`, look: look(String(report.runs[id].seed)), points: curve(entry, column, [report.runs[id]]) })).filter(({ points }) => points.length);
    if (lines.length) {
      const { option } = linePanel({ lines, x: { name: "epoch" }, y: { name: columnHead(column) }, marks: false });
      addPanel(panels, { title: columnHead(column), option, height: 230 }, `${columnHead(column)} by epoch, a line for each seed`);
    }
  }
}

function setUpFigures() {
  addFigure({ id: "parallel", title: "Every run over all metrics", draw: parallel, controls: (again) => [colourControl(again)], empty: "it takes two runs that count, and two metrics",
    caption: "Parallel coordinates: a line a run, up is better on every axis of a metric. Pareto-optimal runs, which no other run beats in all metrics, are drawn in full and others faint. Drag along an axis to choose a range; click a line for its run." });
  addFigure({ id: "pareto", title: "Pareto fronts", draw: pareto, controls: paretoControls, empty: "it takes a run that counts, and two metrics",
    caption: "A point a run. The line joins the runs that pass the filters and that no other of that colour beats in these two metrics. Large: Pareto-optimal among all runs in all metrics. Click a point for its run." });
  addFigure({ id: "response", title: "Response to the learning rate", draw: response, controls: responseControls, empty: "it takes finished runs at two learning rates",
    caption: "Test results by learning rate: the mean over seeds and the band from the worst to the best. A cross: not every seed came to an end there. Where a row has several settings with one rate, that which validation prefers. Click a point for its runs." });
  addFigure({ id: "training", title: "Training curves", draw: training, controls: trainingControls, empty: "no curves of two epochs or more are in this page",
    caption: "Of the tables' rows: the mean over finished seeds and the band from the least to the most. Click a line for its runs." });
  addFigure({ id: "weights", title: "Weights of the tasks", draw: weights, empty: "no row has weights of two epochs or more",
    caption: "The mean weight of each task by epoch, of the tables' rows: the mean over finished seeds and the band from the least to the most." });
}
