// The page is put together; filters and theme.

function refresh() {
  rowsShown = PAGE;
  drawTable();
  drawStates();
  redraw();
}

function drawSummary() {
  const ids = Object.keys(report.runs);
  const counts = counted(ids).map(([state, count]) => `${count.toLocaleString("en")} ${state}`);
  const settings = report.comparisons.reduce((sum, one) => sum + one.settings.length, 0);
  byId("summary").textContent = `${plural(ids.length, "run")} of ${plural(settings, "setting")}: ${counts.join(", ")}. Selection: ${report.select}.`;
  const held = ids.filter((id) => report.runs[id].curves);
  const longest = Math.max(0, ...held.map((id) => report.runs[id].curves.epoch.length));
  byId("thinned").textContent = held.length
    ? `This page holds the curves of ${held.length.toLocaleString("en")} of ${plural(ids.length, "run")}${held.length < ids.length ? " (those of the tables' rows, and whatever else was small enough)" : ""}, thinned to at most ${report.points} epochs each (${longest} at most here): the first, the last, and evenly between. Every epoch is in the runs' metrics.jsonl. Numbers are rounded to six digits.`
    : "This page holds no curves; every epoch is in the runs' metrics.jsonl. Numbers are rounded to six digits.";
}

function drawNotes() {
  const { notes, synthetic } = current();
  const lines = [...notes, ...report.notes];
  byId("notes").replaceChildren(...lines.map((text) => element("li", { class: synthetic && text.includes("synthetic data") ? "warning" : null }, text)));
  byId("tables").replaceChildren(...current().tables.map(({ title, notes: above, legend, head, rows }, i) =>
    element("details", { open: i === 0 }, element("summary", {}, title),
      i ? above.map((text) => element("p", {}, text)) : [], tableElement(title, head, rows), legend.map((text) => element("p", { class: "hint" }, text)))));
}

function facetElement(name) {
  const values = facet(name);
  const boxes = [];
  const chip = (value) => {
    const input = element("input", { type: "checkbox", checked: !choice.hidden[name].has(value) });
    input.addEventListener("change", () => {
      choice.hidden[name][input.checked ? "delete" : "add"](value);
      changed();
    });
    boxes.push([input, value]);
    return element("label", { class: "chip" }, input, String(value));
  };
  const all = (shown) => () => {
    for (const [input, value] of boxes) {
      input.checked = shown;
      choice.hidden[name][shown ? "delete" : "add"](value);
    }
    changed();
  };
  const both = values.length > 3 ? [["all", true], ["none", false]].map(([text, shown]) =>
    element("button", { type: "button", class: "small", "aria-label": `${text} of ${name}`, onclick: all(shown) }, text)) : [];
  return element("fieldset", { "data-facet": name }, element("legend", {}, name), values.map(chip), both);
}

function changed() {
  refresh();
  say(`${plural(entriesOf(choice.view).length, "row")} pass the filters.`);
}

function drawFilters() {
  const search = element("input", { type: "search", placeholder: "a setting or a run's id", value: choice.text });
  search.addEventListener("input", () => { choice.text = search.value; changed(); });
  const several = report.comparisons.length > 1
    ? [selectElement("Comparison", report.comparisons.map(({ title }, i) => [String(i), title]), String(choice.comparison), (value) => chooseComparison(Number(value)))]
    : [];
  byId("filters").replaceChildren(...several, ...["method", "optimizer", "seed"].map(facetElement), element("label", {}, "Find ", search));
}

function chooseComparison(place) {
  choice.comparison = place;
  Object.values(choice.hidden).forEach((hidden) => hidden.clear());
  choice.sort = null;
  drawNotes();
  drawFilters();
  refresh();
}

function setUpTheme() {
  byId("theme").addEventListener("change", (event) => {
    document.documentElement.dataset.theme = event.target.value;
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  byId("print").addEventListener("click", () => print());
  addEventListener("beforeprint", () => { printing = true; drawAll(); });
  addEventListener("afterprint", () => { printing = false; redraw(); });
}

byId("filters").addEventListener("submit", (event) => event.preventDefault());
drawSummary();
drawNotes();
setUpTable();
setUpDialog();
setUpFigures();
setUpTheme();
drawFilters();
refresh();
if (location.hash.length > 1) openRun(location.hash.slice(1));
