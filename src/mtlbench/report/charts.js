// Drawing: colours, lines with bands, panels that are drawn when they come into view.

const PALETTES = { // Okabe and Ito's, told apart by most eyes, darker or lighter where the ground asks for it
  light: ["#0072b2", "#d55e00", "#00805d", "#b5548c", "#a06b00", "#3a97cf", "#20242a", "#8a6d3b", "#7b5ea7", "#7f7f7f"],
  dark: ["#4da6e0", "#f0853a", "#2fc596", "#e29ac6", "#e6b53c", "#9ad7f7", "#f2f2f2", "#cbab75", "#b39be0", "#a9a9a9"],
};
const DASHES = ["solid", [7, 4], [2, 3], [9, 3, 2, 3]];
const SYMBOLS = ["circle", "rect", "triangle", "diamond", "emptyCircle", "emptyRect", "emptyTriangle", "emptyDiamond"];
const MANY = 500; // lines or points that are drawn on a canvas and not as SVG

let printing = false;

function theme() {
  if (printing) return "light";
  return document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

// A colour, dash and symbol for each name, by its place among all names (not only those that pass the filters).
function looks(names) {
  const places = new Map(names.map((name, i) => [name, i]));
  return (name) => {
    const place = places.get(name) ?? 0;
    const colours = PALETTES[theme()];
    return {
      colour: colours[place % colours.length],
      dash: DASHES[(Math.floor(place / colours.length) + place) % DASHES.length],
      symbol: SYMBOLS[place % SYMBOLS.length],
    };
  };
}

function tone(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(printing ? `--print-${name}` : `--${name}`).trim();
}

function axis(more) {
  const text = tone("text");
  return {
    type: "value",
    scale: true,
    nameLocation: "middle",
    nameGap: 30,
    nameTextStyle: { color: text, fontSize: 12 },
    axisLabel: { color: text, hideOverlap: true, fontSize: 11 },
    axisLine: { show: true, lineStyle: { color: tone("line") } },
    splitLine: { lineStyle: { color: tone("line"), opacity: 0.6 } },
    ...more,
  };
}

// A tooltip of text alone: first a line, then [colour, text] each.
function tooltip(title, lines) {
  return element("div", { class: "tip" }, element("strong", {}, title), lines.map(([colour, text]) => {
    const mark = element("span", { class: "mark" });
    mark.style.background = colour;
    return element("div", {}, mark, text);
  }));
}

const TIP = { confine: true, padding: 0, borderWidth: 0, backgroundColor: "transparent", extraCssText: "box-shadow:none" };

function plainly(value) {
  return known(value) && Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "-";
}

// A panel of lines. lines: [{name, look, points: [{x, mean, low, high, entry}], lost: [x]}]; y: {name, higher, squashed}
function linePanel({ title, lines, x, y, marks = true }) {
  const shape = y.squashed ? squash : (value) => value;
  const series = [];
  for (const { name, look, points } of lines) {
    if (points.some((point) => point.low !== point.high)) series.push(band(look, points, shape));
    series.push({
      type: "line", name, symbol: look.symbol, symbolSize: 7, showSymbol: marks || points.length === 1, color: look.colour,
      lineStyle: { width: 2, type: look.dash }, triggerLineEvent: true, emphasis: { focus: "series" },
      data: points.map((point) => ({ value: [point.x, shape(point.mean)], point })), entry: points[0]?.entry,
    });
  }
  const values = lines.flatMap(({ points }) => points.flatMap((point) => [point.low, point.high])).filter(known);
  const bad = y.higher ? Math.min(...values) : Math.max(...values);
  const lost = lines.flatMap(({ look, lost = [] }) => lost.map(({ x: at, entry }) => ({ at, entry, colour: look.colour })));
  const before = (i) => lost.slice(0, i).filter(({ at }) => at === lost[i].at).length; // crosses at one rate stand in a column
  if (values.length && lost.length) {
    series.push({
      type: "scatter", symbol: "path://M0,0L10,10M10,0L0,10", symbolSize: 8, tooltip: { show: false },
      data: lost.map(({ at, entry, colour }, i) => ({
        value: [at, shape(bad)], symbolOffset: [0, (y.higher ? -10 : 10) * before(i)], itemStyle: { borderColor: colour, borderWidth: 2 }, point: { entry },
      })),
    });
  }
  const option = {
    grid: { left: 62, right: 16, top: 12, bottom: 46 },
    xAxis: axis({ name: x.name, type: x.log ? "log" : "value", scale: true, splitLine: { show: false }, ...x.more }),
    yAxis: axis({ name: y.name, nameGap: 44, ...(y.squashed ? squashedTicks(values) : {}) }),
    tooltip: {
      ...TIP, trigger: "axis",
      formatter: (all) => {
        const found = all.filter((one) => one.seriesType === "line" && one.data?.point);
        return tooltip(`${x.name} ${plainly(found[0]?.data.point.x)}`, found.map((one) => {
          const { mean: middle, low, high } = one.data.point;
          return [one.color, `${one.seriesName}: ${plainly(middle)}${low === high ? "" : ` (${plainly(low)} to ${plainly(high)})`}`];
        }));
      },
    },
    series,
  };
  const shownAt = (params) => params.data?.point?.entry ?? series[params.seriesIndex]?.entry;
  return { title, option, click: (params) => { const entry = shownAt(params); if (entry) openSetting(entry.setting); } };
}

function band(look, points, shape) {
  return {
    type: "custom", silent: true, z: 1, clip: true, tooltip: { show: false }, color: look.colour,
    encode: { x: 0, y: [1, 2] }, data: points.map((point) => [point.x, shape(point.low), shape(point.high)]),
    renderItem: (params, api) => {
      if (params.dataIndexInside) return null;
      const low = points.map((point) => api.coord([point.x, shape(point.low)]));
      const high = points.map((point) => api.coord([point.x, shape(point.high)])).reverse();
      return { type: "polygon", shape: { points: [...low, ...high] }, style: { fill: look.colour, opacity: 0.16 } };
    },
  };
}

// Linear near 0, logarithmic far from it: Δm of a run that went wrong is hundreds of percent.
const LINEAR = 10;
const squash = (value) => Math.sign(value) * Math.log10(1 + Math.abs(value) / LINEAR);

function squashedTicks(values) {
  const steps = [0, 3, 10, 30, 100, 300, 1000, 1e4, 1e5, 1e6];
  const low = Math.min(...values), high = Math.max(...values);
  const ticks = [...steps.slice(1).map((step) => -step).reverse(), ...steps].filter((step) => step >= low && step <= high);
  const customValues = ticks.map(squash);
  const back = new Map(ticks.map((step) => [squash(step).toFixed(9), String(step)]));
  const formatter = (value) => back.get(value.toFixed(9)) ?? "";
  return {
    min: squash(low), max: squash(high), axisTick: { customValues }, splitLine: { customValues, lineStyle: { color: tone("line"), opacity: 0.6 } },
    axisLabel: { customValues, formatter, color: tone("text"), fontSize: 11 },
  };
}

// Figures: {id, title, caption, controls, draw() -> {legend, panels, numbers} or null where there is nothing to draw}.
const figures = [];
const charts = new Map(); // element -> chart

function forget(holder) {
  for (const [node, chart] of charts) {
    if (holder?.contains(node)) {
      chart.dispose();
      charts.delete(node);
    }
  }
}

function addFigure(figure) {
  const holder = element("div", { class: "panels" });
  const controls = element("div", { class: "controls" });
  const legend = element("ul", { class: "legend", "aria-hidden": "true" });
  const numbers = element("details", { class: "numbers" }, element("summary", {}, "The numbers as a table"));
  const caption = element("p", { id: `${figure.id}-caption` });
  const section = element("section", { id: figure.id, "aria-labelledby": `${figure.id}-head` },
    element("h2", { id: `${figure.id}-head` }, figure.title), caption, controls, legend, holder, numbers);
  byId("figures").append(section);
  Object.assign(figure, { section, holder, legend, numbers, controlsAt: controls, captionAt: caption, stale: true, inView: false });
  numbers.addEventListener("toggle", () => showNumbers(figure));
  figures.push(figure);
  new IntersectionObserver(([seen]) => {
    figure.inView = seen.isIntersecting;
    if (figure.inView && figure.stale) drawFigure(figure);
  }, { rootMargin: "200px" }).observe(section);
}

function drawFigure(figure) {
  figure.stale = false;
  forget(figure.holder);
  figure.controlsAt.replaceChildren(...(figure.controls?.(() => drawFigure(figure)) ?? []));
  const drawn = figure.draw();
  figure.captionAt.textContent = drawn ? `${figure.caption}${drawn.remark ? ` ${drawn.remark}` : ""}` : `${figure.caption} There is nothing to draw: ${figure.empty}.`;
  figure.legend.replaceChildren(...(drawn?.legend ?? []).map(legendItem));
  figure.holder.replaceChildren();
  for (const panel of drawn?.panels ?? []) addPanel(figure.holder, panel, `${figure.title}${panel.title ? `, ${panel.title}` : ""}. ${figure.caption}`);
  figure.numbers.hidden = !drawn?.numbers;
  figure.found = drawn?.numbers;
  showNumbers(figure);
}

function addPanel(holder, panel, label) {
  const canvas = element("div", { class: "chart", role: "img", "aria-label": label });
  if (panel.height) canvas.style.height = `${panel.height}px`;
  if (panel.width) canvas.style.minWidth = `${panel.width}px`;
  const inside = panel.width ? scrolling(label, canvas) : canvas;
  holder.append(element("div", { class: panel.wide ? "panel wide" : "panel" }, panel.title ? element("h3", {}, panel.title) : null, inside));
  const chart = echarts.init(canvas, null, { renderer: panel.many > MANY ? "canvas" : "svg" });
  chart.setOption({ animation: false, textStyle: { fontFamily: "system-ui, sans-serif", color: tone("text") }, ...panel.option });
  if (panel.click) chart.on("click", panel.click);
  charts.set(canvas, chart);
  resized.observe(canvas);
}

const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => charts.get(target)?.resize()));

// {text, colour, dash, symbol}: dash null for points alone, symbol null for lines alone.
function legendItem({ text, colour, dash, symbol, filled = true }) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const part = (tag, attributes) => {
    const made = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    svg.append(made);
  };
  svg.setAttribute("viewBox", "0 0 30 12");
  if (dash) part("line", { x1: 1, x2: 29, y1: 6, y2: 6, stroke: colour, "stroke-width": 2, "stroke-dasharray": dash === "solid" ? "none" : dash.join(" ") });
  const shapes = { circle: "M11,6a4,4 0 1,0 8,0a4,4 0 1,0 -8,0", rect: "M11,2h8v8h-8z", triangle: "M15,1.5l4.5,8.5h-9z", diamond: "M15,1l5,5l-5,5l-5,-5z" };
  const name = symbol?.replace("empty", "").toLowerCase();
  if (name) part("path", { d: shapes[name], stroke: colour, "stroke-width": 1.5, fill: filled && !symbol.startsWith("empty") ? colour : tone("ground") });
  return element("li", {}, svg, text);
}

const ROWS = 300;

function showNumbers(figure) {
  const { numbers, found } = figure;
  while (numbers.children.length > 1) numbers.lastElementChild.remove();
  if (!found || !numbers.open) return;
  if (found.rows.length > ROWS) numbers.append(element("p", {}, `The first ${ROWS} of ${found.rows.length}; all are in records.csv.`));
  numbers.append(tableElement(figure.title, found.head, found.rows.slice(0, ROWS)));
}

function redraw() {
  for (const figure of figures) {
    figure.stale = true;
    if (figure.inView) drawFigure(figure);
  }
}

function drawAll() {
  figures.forEach(drawFigure);
  charts.forEach((chart) => chart.resize());
}
