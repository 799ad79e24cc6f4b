// The live tree. What models and tools said is only ever set as text.

const ROW = 26;
const COL = 16;
const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** The lines and the dot of one row. */
function gutter(row, wide, tones) {
  const x = (col) => 10 + col * COL;
  const middle = ROW / 2;
  const svg = shape("svg", { width: x(wide), height: ROW, "aria-hidden": "true", class: "llmproc-gutter" });
  const colour = (tone) => tones[tone % tones.length];
  const line = (d, tone, living, loose) =>
    svg.append(shape("path", { d, fill: "none", stroke: colour(tone), "stroke-width": 1.7, opacity: living ? 1 : 0.4, ...(loose ? { "stroke-dasharray": "2 3" } : {}) }));
  for (const [col, tone, living] of row.lanes) line(`M${x(col)} 0V${ROW}`, tone, living);
  const at = x(row.col);
  if (row.above) line(`M${at} 0V${middle - 6}`, row.tone, row.living);
  if (row.elbow) line(`M${x(row.col - 1)} -6C${x(row.col - 1)} ${middle} ${x(row.col - 1)} ${middle} ${at - 6} ${middle}`, row.tone, row.living, row.loose);
  if (row.under) line(`M${at} ${middle + 6}V${ROW}`, row.under[0], row.under[1]);
  const fill = { fill: colour(row.tone), opacity: row.living ? 1 : 0.45 };
  if (row.key !== undefined) for (const step of [-4, 0, 4]) svg.append(shape("circle", { cx: at, cy: middle + step, r: 1.3, ...fill }));
  else if (row.role === "user") svg.append(shape("circle", { cx: at, cy: middle, r: 5, ...fill }));
  else if (row.role === "assistant") svg.append(shape("circle", { cx: at, cy: middle, r: 4.4, ...fill, fill: "none", stroke: colour(row.tone), "stroke-width": 1.9 }));
  else if (row.role === "tool") svg.append(shape("circle", { cx: at, cy: middle, r: 3, ...fill }));
  else svg.append(shape("rect", { x: at - 4, y: middle - 4, width: 8, height: 8, rx: 2, ...fill }));
  return svg;
}

function render({ model, el }) {
  const root = make("div", "llmproc-view llmproc-tree");
  root.dataset.lmSuppressShortcuts = "true";
  const note = make("div", "llmproc-note");
  const say = (text, bad) => {
    note.textContent = text || "";
    note.classList.toggle("llmproc-bad", Boolean(bad));
  };
  const ask = asker(model, () => say(NO_ANSWER, true));
  let zoom = 1;
  let chosen = null;

  const size = make("span", "llmproc-quiet");
  const whole = button("open all", "Show every message, or fold long runs again", () => ask("all", !model.get("facts").whole));
  const scale = (by) => {
    zoom = Math.min(Math.max(zoom * by, 0.4), 2);
    list.style.zoom = zoom;
  };
  const actions = make("span", "llmproc-actions", null);
  actions.append(
    whole,
    button("−", "Smaller", () => scale(1 / 1.2)),
    button("+", "Larger", () => scale(1.2)),
    button("↻", "Bring up to date", () => ask("renew")),
  );
  const head = make("div", "llmproc-head", null, make("strong", "", "tree"), size, actions);

  const list = make("div", "llmproc-rows");
  list.setAttribute("role", "tree");
  list.addEventListener("keydown", (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const now = event.target.closest(".llmproc-node");
    if (!now || (step === undefined && event.key !== "Enter" && event.key !== " ")) return;
    event.stopPropagation();
    event.preventDefault();
    if (step === undefined) now.click();
    else (step > 0 ? now.nextElementSibling : now.previousElementSibling)?.focus();
  });
  const stage = make("div", "llmproc-stage", null, list);

  const title = make("strong");
  const role = make("span", "llmproc-quiet");
  const fork = button("fork from here", "A new process on this message", () => ask("fork", chosen), "llmproc-button llmproc-act");
  const goto_ = button("go here", "Let the process stand on this message", () => ask("goto", chosen), "llmproc-button llmproc-act");
  const close = button("×", "Close", () => choose(null));
  const facts = make("div", "llmproc-facts");
  const parts = make("div", "llmproc-parts");
  const detail = make("div", "llmproc-detail", null, make("div", "llmproc-head", null, title, role, make("span", "llmproc-actions", null, fork, goto_, close)), facts, parts);
  detail.hidden = true;
  root.append(head, stage, detail, note);

  function choose(id) {
    chosen = id;
    for (const one of list.children) {
      one.classList.toggle("llmproc-chosen", one.dataset.node === id);
      one.setAttribute("aria-selected", String(one.dataset.node === id));
    }
    detail.hidden = id === null || model.get("detail").id !== id;
  }

  function row(told, wide, tones) {
    const one = make("div", "llmproc-node", null, gutter(told, wide, tones));
    one.setAttribute("role", "treeitem");
    one.setAttribute("aria-level", String(told.col + 1));
    one.tabIndex = -1;
    if (!told.living) one.classList.add("llmproc-left");
    if (told.id === undefined) {
      one.classList.add("llmproc-fold");
      one.append(make("span", "llmproc-said", told.words));
      if (told.key) one.addEventListener("click", () => ask("open", told.key));
      return one;
    }
    one.dataset.node = told.id;
    one.append(make("span", "llmproc-number-of", told.label), make("span", "llmproc-role", told.role));
    for (const [name, tone] of told.heads) {
      const pill = make("span", "llmproc-pill", name);
      pill.style.setProperty("--llmproc-tone", tones[tone % tones.length]);
      one.append(pill);
    }
    const said = make("span", "llmproc-said", told.words);
    said.title = told.words;
    one.append(said);
    if (told.marks.length) one.append(make("span", "llmproc-mark", told.marks.join(" · ")));
    one.addEventListener("click", () => {
      choose(told.id);
      ask("show", told.id);
    });
    return one;
  }

  function showRows() {
    const rows = model.get("rows");
    const tones = model.get("facts").tones;
    const wide = rows.reduce((most, told) => Math.max(most, told.col), 0) + 1;
    const made = document.createDocumentFragment();
    for (const told of rows) made.append(row(told, wide, tones));
    list.replaceChildren(made);
    if (list.firstChild) list.firstChild.tabIndex = 0;
    if (chosen) choose(rows.some((told) => told.id === chosen) ? chosen : null);
  }

  function showFacts() {
    const told = model.get("facts");
    size.textContent = told.size;
    whole.textContent = told.whole ? "fold" : "open all";
    fork.hidden = !told.can[0];
    goto_.hidden = !told.can[1];
  }

  function showDetail() {
    const told = model.get("detail");
    if (!told.id || (chosen && told.id !== chosen)) return;
    title.textContent = told.title;
    role.textContent = told.role;
    facts.replaceChildren(...told.facts.map(([name, value]) => make("span", "llmproc-fact", null, make("span", "llmproc-quiet", name), ` ${value}`)));
    parts.replaceChildren(
      ...told.sections.flatMap(([heading, words]) => [
        ...(heading ? [make("div", "llmproc-heading", heading)] : []),
        ...(words ? [make("div", "llmproc-words llmproc-part", words)] : []),
      ]),
    );
    choose(told.id);
  }

  model.on("change:rows", showRows);
  model.on("change:facts", showFacts);
  model.on("change:detail", showDetail);
  model.on("change:note", () => say(model.get("note").text, model.get("note").bad));
  showFacts();
  showRows();
  return takePlace(el, root, model);
}

export default { render };
