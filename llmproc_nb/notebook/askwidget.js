// The buttons of an ask. Every text is put in as text; the buttons take no click in the first moment.

const QUIET = "opacity:.75;font-size:.9em";
const PRE = "white-space:pre-wrap;overflow-wrap:anywhere;max-height:24em;overflow:auto;margin:4px 0;padding:4px 6px;"
  + "background:var(--jp-layout-color2,#f5f5f5);color:inherit;font-family:var(--jp-code-font-family,monospace);"
  + "font-size:var(--jp-code-font-size,13px)";
const FIELD = "font-family:inherit;font-size:inherit;padding:3px 6px;border:1px solid var(--jp-border-color1,#bdbdbd);"
  + "background:var(--jp-layout-color0,#fff);color:inherit;border-radius:2px";

function render({ model, el }) {
  const add = (parent, tag, text, style) => {
    const made = document.createElement(tag);
    made.textContent = text || "";
    if (style) made.style.cssText = style;
    parent.appendChild(made);
    return made;
  };
  const box = add(el, "div", "", "border-left:3px solid var(--jp-warn-color1,#c77700);padding:2px 0 4px 10px;margin:2px 0;"
    + "color:var(--jp-content-font-color1,inherit)");
  add(box, "div", model.get("title"), "font-weight:600");
  if (model.get("description")) add(box, "div", model.get("description"), QUIET + ";white-space:pre-line");
  const shown = add(box, "pre", model.get("arguments"), PRE);
  const edit = add(box, "textarea", "", FIELD + ";display:none;width:100%;box-sizing:border-box;"
    + "font-family:var(--jp-code-font-family,monospace)");
  edit.setAttribute("aria-label", "arguments as JSON");
  edit.rows = 8;
  edit.spellcheck = false;
  const fault = add(box, "div", "", "color:var(--jp-error-color1,#d03030)");
  fault.setAttribute("role", "alert");
  const row = add(box, "div", "", "display:flex;flex-wrap:wrap;gap:6px;align-items:center");
  const parts = [];
  const button = (text, act, style) => {
    const made = add(row, "button", text, "width:auto;cursor:pointer;padding:2px 12px;" + (style || ""));
    made.className = "jupyter-button";
    made.addEventListener("click", act);
    parts.push(made);
    return made;
  };
  const ready = (yes) => parts.forEach((part) => { part.disabled = !yes; });
  const answer = (what) => { fault.textContent = ""; ready(false); model.send(what); };
  const allow = button("Allow", () => answer(editing() ? { kind: "edit", text: edit.value } : { kind: "allow" }));
  const always = button("Allow always in this process", () => answer({ kind: "always" }));
  always.hidden = model.get("once");
  if (always.hidden) always.style.display = "none";
  button("Refuse", () => answer({ kind: "refuse", text: reason.value }));
  const reason = add(row, "input", "", FIELD + ";flex:1 1 12em");
  reason.placeholder = "why not (optional)";
  reason.setAttribute("aria-label", "reason");
  reason.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter" && reason.value.trim() && !reason.disabled) answer({ kind: "refuse", text: reason.value });
  });
  parts.push(reason, edit);
  const editing = () => edit.style.display !== "none";
  const toggle = button("Edit arguments", () => {
    const on = !editing();
    if (on && !edit.value) edit.value = model.get("json");
    edit.style.display = on ? "block" : "none";
    shown.style.display = on ? "none" : "block";
    always.style.display = on || always.hidden ? "none" : "";
    allow.textContent = on ? "Allow with these" : "Allow";
    toggle.textContent = on ? "Back" : "Edit arguments";
    fault.textContent = "";
    if (on) edit.focus();
  });
  edit.addEventListener("keydown", (event) => event.stopPropagation());
  if (model.get("waiting")) add(box, "div", model.get("waiting"), QUIET);
  const told = (message) => { fault.textContent = message.text; ready(true); };
  model.on("msg:custom", told);
  ready(false);
  const timer = setTimeout(() => ready(true), 350);
  model.send({ kind: "shown" });
  return () => { clearTimeout(timer); model.off("msg:custom", told); };
}
export default { render };
