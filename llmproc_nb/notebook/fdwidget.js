// The paged view of a long text. Its text is hostile: it is only ever set as text.

function render({ model, el }) {
  const root = make("div", "llmproc-view llmproc-fd");
  root.dataset.lmSuppressShortcuts = "true";
  const note = make("div", "llmproc-note");
  const say = (text, bad) => {
    note.textContent = text || "";
    note.classList.toggle("llmproc-bad", Boolean(bad));
  };
  const ask = asker(model, () => say(NO_ANSWER, true));
  const page = () => model.get("page");

  // what it is
  const name = make("strong");
  const label = make("span", "llmproc-label");
  const size = make("span", "llmproc-quiet");
  const save = button("save", "Save the whole text to a file in the notebook's folder", () => saving.toggle());
  const copy = button("copy", "Copy this page as it is shown", () => copyPage());
  const head = make("div", "llmproc-head", null, name, label, size, make("span", "llmproc-actions", null, copy, save));

  const file = input("llmproc-file", "File name", (value) => saving.send(value));
  const form = make("div", "llmproc-saving", null, make("span", "llmproc-quiet", "save as"), file);
  form.append(
    button("save all", "Write the whole text to this file", () => saving.send(file.value)),
    button("download page", "Download what is shown, without the kernel", () => download()),
  );
  form.hidden = true;
  const saving = {
    toggle() {
      form.hidden = !form.hidden;
      file.value = file.value || model.get("facts").file;
      if (!form.hidden) file.select();
    },
    send(value) {
      ask("save", value);
      form.hidden = true;
    },
  };

  // where in the text
  const reads = make("div", "llmproc-reads");
  const ticks = make("div", "llmproc-ticks");
  const thumb = make("div", "llmproc-thumb");
  const bar = make("div", "llmproc-bar", null, reads, ticks, thumb);
  bar.title = "the whole text; what the model has read is coloured";
  bar.addEventListener("click", (event) => {
    const box = bar.getBoundingClientRect();
    ask("at", (event.clientX - box.left) / Math.max(box.width, 1));
  });

  // how to move
  const first = button("«", "First page", () => ask("page", 1));
  const back = button("‹", "Page before", () => ask("page", page().number - 1));
  const on = button("›", "Next page", () => ask("page", page().number + 1));
  const last = button("»", "Last page", () => ask("page", page().pages));
  const number = input("llmproc-number", "Page", (value) => ask("page", value));
  const pages = make("span", "llmproc-quiet");
  const line = input("llmproc-number", "Go to line", (value) => ask("line", value));
  line.placeholder = "to line";
  const find = input("llmproc-find", "Search", (value, event) => search(value, event.shiftKey ? -1 : 1));
  find.placeholder = "search (regular expression)";
  find.title = "Enter: search, then next; Shift+Enter: the one before. In small letters only, case does not matter";
  const hits = make("span", "llmproc-quiet llmproc-hits");
  const up = button("↑", "Match before", () => ask("step", -1));
  const down = button("↓", "Next match", () => ask("step", 1));
  const tools = make("div", "llmproc-tools", null);
  tools.append(
    make("span", "llmproc-group", null, first, back, number, pages, on, last),
    line,
    make("span", "llmproc-group llmproc-grow", null, find, up, down, hits),
  );

  const text = make("div", "llmproc-text");
  text.tabIndex = 0;
  text.setAttribute("role", "document");
  text.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.stopPropagation();
    event.preventDefault();
    const wanted = page().number + step;
    if (wanted >= 1 && wanted <= page().pages) ask("page", wanted);
  });
  root.append(head, form, bar, tools, text, note);

  function search(value, step) {
    const same = model.get("hits")?.pattern === value;
    if (same && value) ask("step", step);
    else ask("find", value);
  }

  function spans(element, ranges, name) {
    element.replaceChildren();
    for (const [start, stop] of ranges || []) {
      const part = make("div", name);
      part.style.left = `${start / 10}%`;
      part.style.width = `${(stop - start) / 10}%`;
      element.append(part);
    }
  }

  function showFacts() {
    const facts = model.get("facts");
    name.textContent = facts.name;
    label.textContent = facts.label;
    size.textContent = [facts.size, facts.read].filter(Boolean).join(" · ");
    spans(reads, facts.bar, "llmproc-range");
  }

  function showHits() {
    const found = model.get("hits") || {};
    spans(ticks, (found.ticks || []).map((at) => [at, at]), "llmproc-tick");
    const none = !found.count;
    up.disabled = down.disabled = none;
    if (!found.pattern) hits.textContent = "";
    else if (none) hits.textContent = found.busy ? "…" : "none";
    else hits.textContent = `${found.index.toLocaleString("en")} of ${found.count.toLocaleString("en")}${found.more ? "+" : ""}`;
  }

  /** A row of text with the matches in it as marks; `at` is the place of its first character on the page. */
  function fill(element, chars, at, found, current) {
    let from = 0;
    for (const [start, stop, match] of found) {
      const a = Math.max(start - at, from);
      const b = Math.min(stop - at, chars.length);
      if (stop < at || start > at + chars.length || b < a) continue;
      element.append(chars.slice(from, a).join(""));
      const mark = make("mark", match === current ? "llmproc-match llmproc-current" : "llmproc-match", chars.slice(a, b).join(""));
      element.append(mark);
      from = b;
    }
    element.append(chars.slice(from).join(""));
  }

  function showPage() {
    const now = page();
    const rows = document.createDocumentFragment();
    if (now.columns) {
      const names = make("span", "llmproc-words", now.columns);
      rows.append(make("div", "llmproc-row llmproc-columns", null, make("span", "llmproc-count", "1"), names));
    }
    let at = 0;
    now.text.split("\n").forEach((words, row) => {
      const chars = Array.from(words);
      const count = make("span", "llmproc-count", row || !now.continued ? String(now.first_line + row) : "…");
      const shown = make("span", "llmproc-words");
      fill(shown, chars, at, now.found, now.match);
      const one = make("div", "llmproc-row", null, count, shown);
      if (now.read.some(([start, stop]) => start <= row && row < stop)) {
        one.classList.add("llmproc-read");
        count.title = "the model has read this";
      }
      if (now.line === now.first_line + row) one.classList.add("llmproc-target");
      rows.append(one);
      at += chars.length + 1;
    });
    text.replaceChildren(rows);
    text.scrollTop = 0;
    text.querySelector(".llmproc-current, .llmproc-target")?.scrollIntoView({ block: "nearest" });
    number.value = now.number;
    pages.textContent = `of ${now.pages.toLocaleString("en")}`;
    first.disabled = back.disabled = now.number <= 1;
    on.disabled = last.disabled = now.number >= now.pages;
    const wide = Math.max(100 / now.pages, 0.6);
    thumb.style.width = `${wide}%`;
    thumb.style.left = `${((100 - wide) * (now.number - 1)) / Math.max(now.pages - 1, 1)}%`;
    thumb.hidden = now.pages <= 1;
    root.classList.toggle("llmproc-single", now.pages <= 1);
  }

  const shownText = () => (page().columns ? `${page().columns}\n` : "") + page().text;

  async function copyPage() {
    try {
      await navigator.clipboard.writeText(shownText());
    } catch {
      const area = make("textarea", "llmproc-offscreen");
      area.value = shownText();
      root.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    say(`copied page ${page().number}, ${Array.from(shownText()).length.toLocaleString("en")} characters as shown`);
  }

  function download() {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([shownText()], { type: "text/plain;charset=utf-8" }));
    link.download = (file.value || model.get("facts").file).replace(/(\.[^.]*)?$/, `-page-${page().number}$1`);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    form.hidden = true;
  }

  model.on("change:facts", showFacts);
  model.on("change:page", showPage);
  model.on("change:hits", showHits);
  model.on("change:note", () => say(model.get("note").text, model.get("note").bad));
  showFacts();
  showPage();
  showHits();
  return takePlace(el, root, model);
}

export default { render };
