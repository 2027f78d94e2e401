// What is behind a number: the runs, their configuration, and what repeats each.

const said = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function pairsTable(caption, pairs) {
  return tableElement(caption, ["key", "value"], Object.entries(pairs).map(([key, value]) => [key, said(value)]));
}

// Opens the dialog for a setting, with one of its runs marked where a run was meant.
function openSetting(setting, marked = null) {
  const dialog = byId("dialog");
  const metrics = current().metrics.filter((metric) => setting.runs.some((id) => known(report.runs[id].values.test?.[metric.name])));
  dialog.replaceChildren(
    element("form", { method: "dialog" }, element("button", { class: "close", "aria-label": "Close" }, "×")),
    element("h2", { id: "dialog-title", tabindex: "-1" }, setting.label),
    element("p", {}, `Seeds that count: ${setting.n}. ${setting.chosen ? "A row of the tables." : `A candidate of the row ${setting.group}.`}`),
    element("h3", {}, "Runs"),
    runsTable(setting, metrics, marked),
    element("h3", {}, "What repeats each"),
    element("ul", { class: "commands" }, setting.runs.map((id) => element("li", {}, `seed ${report.runs[id].seed} `, commandElement(report.runs[id].command)))),
    element("h3", {}, "Configuration"),
    element("p", {}, "What differs from other settings of this table:"),
    pairsTable("Configuration of this setting", setting.keys),
    element("details", {}, element("summary", {}, "What all settings share"), pairsTable("Configuration of all settings", current().common)),
    element("h3", {}, "Curves"),
    element("div", { id: "dialog-curves" }),
  );
  if (!dialog.open) dialog.showModal();
  byId("dialog-title").focus();
  dialog.scrollTop = 0;
  history.replaceState(null, "", `#${marked ?? setting.runs[0]}`);
  dialogCurves(byId("dialog-curves"), setting, metrics);
}

function runsTable(setting, metrics, marked) {
  const digits = metrics.map((metric) => decimals(setting.runs.map((id) => report.runs[id].values.test?.[metric.name])));
  const head = ["run", "seed", "state", "epoch", ...metrics.map(headOf), ...Object.values(FORMS).map((form) => form.head), "Pareto-optimal"];
  const rows = setting.runs.map((id) => {
    const run = report.runs[id];
    const state = [run.state, run.reason].filter(Boolean).join(": ") + (run.other_code ? " (by other code)" : "");
    return [
      element("span", { class: id === marked ? "marked" : null }, id),
      String(run.seed),
      state,
      known(run.epoch) ? String(run.epoch) : "-",
      ...metrics.map((metric, i) => number(run.values.test?.[metric.name], digits[i])),
      ...Object.keys(FORMS).map((form) => number(run.delta[form], 2)),
      run.pareto ? (run.pareto.full ? "yes" : run.pareto.other ? "against other optimizers" : "no") : "not counted",
    ];
  });
  return tableElement(`Runs of ${setting.label}: test metrics`, head, rows);
}

function openRun(id) {
  for (const [place, comparison] of report.comparisons.entries()) {
    const setting = comparison.settings.find((one) => one.runs.includes(id));
    if (setting) {
      if (place !== choice.comparison) chooseComparison(place);
      openSetting(setting, id);
      return;
    }
  }
}

function setUpDialog() {
  const dialog = byId("dialog");
  dialog.addEventListener("close", () => {
    forget(byId("dialog-curves"));
    history.replaceState(null, "", location.pathname + location.search);
  });
  dialog.addEventListener("click", (event) => { // beside the dialog: on its backdrop
    if (event.target === dialog) dialog.close();
  });
}
