// What became of the runs: a count for each row and learning rate, and what to type for those that are not done.

const ENDED = "done";

function drawStates() {
  const entries = passing();
  const ids = entries.flatMap((entry) => entry.ids);
  const counts = counted(ids).map(([state, count]) => `${count.toLocaleString("en")} ${state}`);
  const rates = [...new Set(entries.map((entry) => entry.setting.lr))].sort((a, b) => (a ?? 0) - (b ?? 0));
  const rows = new Map();
  for (const entry of entries) {
    const name = entry.setting.single_task === null ? entry.setting.group : `single_task ${entry.setting.single_task}`;
    const key = name.includes(entry.setting.optimizer) ? name : `${name}, ${entry.setting.optimizer}`;
    if (!rows.has(key)) rows.set(key, new Map());
    const cells = rows.get(key);
    cells.set(entry.setting.lr, [...(cells.get(entry.setting.lr) ?? []), entry]);
  }
  const table = [...rows].map(([name, cells]) => [name, ...rates.map((rate) => stateCell(cells.get(rate)))]);
  byId("states").replaceChildren(
    element("p", {}, `${plural(ids.length, "run")}: ${counts.join(", ")}. In each cell, how many are done; the darker, the fewer.`),
    tableElement("Runs that are done, by row and learning rate", ["row", ...rates.map((rate) => `lr ${rateText(rate)}`)], table),
    notDone(ids),
  );
}

function stateCell(entries) {
  if (!entries) return "";
  const ids = entries.flatMap((entry) => entry.ids);
  const done = ids.filter((id) => report.runs[id].state === ENDED).length;
  const others = counted(ids).filter(([state]) => state !== ENDED).map(([state, count]) => `${count} ${state}`);
  const text = `${done}/${ids.length}`;
  const button = element("button", { type: "button", class: `state ${done === ids.length ? "full" : done ? "part" : "none"}` }, others.length ? `${text}: ${others.join(", ")}` : text);
  button.addEventListener("click", () => openSetting(entries.find((entry) => finished(entry).length < entry.ids.length)?.setting ?? entries[0].setting));
  return button;
}

const LISTED = 200;

function notDone(ids) {
  const others = ids.filter((id) => report.runs[id].state !== ENDED);
  if (!others.length) return element("p", {}, "All are done.");
  const rows = others.slice(0, LISTED).map((id) => {
    const run = report.runs[id];
    return [id, run.state, run.reason, commandElement(run.command)];
  });
  return element("details", {},
    element("summary", {}, `${plural(others.length, "run")} not done: why, and what to type${others.length > LISTED ? ` (the first ${LISTED})` : ""}`),
    element("p", {}, "All that is missing: ", commandElement(report.commands.run)),
    tableElement("Runs that are not done", ["run", "state", "reason", "command"], rows));
}
