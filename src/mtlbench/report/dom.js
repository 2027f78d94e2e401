// Making elements. All text enters the page here, as text.

const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (known(value) && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter(known));
  return made;
}

// What a screen reader is to be told.
function say(text) {
  byId("said").textContent = text;
}

// A table that scrolls by itself; rows of [text, mark] or of nodes.
function tableElement(caption, head, rows) {
  const cell = (content, place) => {
    const [inside, mark] = Array.isArray(content) ? content : [content, ""];
    return element(place ? "td" : "th", { class: mark || null, scope: place ? null : "row" }, inside);
  };
  const table = element(
    "table",
    {},
    element("caption", { class: "unseen" }, caption),
    element("thead", {}, element("tr", {}, head.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, rows.map((row) => element("tr", {}, row.map(cell)))),
  );
  return scrolling(caption, table);
}

function scrolling(label, ...children) {
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, children);
}

function selectElement(label, options, value, onchange) {
  const select = element("select", {}, options.map(([key, text]) => element("option", { value: key }, text)));
  select.value = value;
  select.addEventListener("change", () => onchange(select.value));
  return element("label", {}, `${label} `, select);
}

// A command with a button that copies it, or selects it where copying is not allowed.
function commandElement(command) {
  const code = element("code", {}, command);
  const button = element("button", { type: "button", class: "copy", "aria-label": `Copy: ${command}` }, "copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command);
      button.textContent = "copied";
      say("Copied.");
    } catch {
      getSelection().selectAllChildren(code);
      say("Selected: copy it with the keyboard.");
    }
  });
  return element("span", { class: "command" }, code, button);
}
