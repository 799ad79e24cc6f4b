// What our widgets have in common: building elements (text only, never HTML), and taking the place of the static twin.

/** An element with a class, a text and children. */
function make(tag, name, text, ...children) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined && text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

/** A button with a label for those who cannot see its sign. */
function button(sign, label, act, name = "llmproc-button") {
  const made = make("button", name, sign);
  made.type = "button";
  made.title = label;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

/** An input line that calls `act` with its value on Enter. */
function input(name, label, act) {
  const made = make("input", `llmproc-input ${name}`);
  made.type = "text";
  made.spellcheck = false;
  made.autocomplete = "off";
  made.setAttribute("aria-label", label);
  made.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter") act(made.value, event);
    if (event.key === "Escape") made.blur();
  });
  return made;
}

/** Asks the kernel, and calls `late` where no answer comes: it is busy, or gone. */
function asker(model, late) {
  let waiting = null;
  const answered = () => {
    clearTimeout(waiting);
    waiting = null;
  };
  model.on("change", answered);
  return (kind, value) => {
    answered();
    waiting = setTimeout(late, 4000);
    model.send({ kind, value });
  };
}

/**
 * Shows `root` in place of the static output before it, where there is one: the file keeps that one, and no widget.
 * Gives what is to be done when the output goes: the kernel then lets the widget go too.
 */
function takePlace(el, root, model) {
  el.append(root);
  let tries = 0;
  let placed = false;
  const look = () => {
    if (!el.isConnected) {
      if (tries++ < 200) setTimeout(look, 25);
      return;
    }
    const before = el.closest(".jp-OutputArea-child")?.previousElementSibling;
    const twin = before?.querySelector(".llmproc-twin");
    if (!twin || twin.style.display === "none") return;
    twin.style.display = "none";
    twin.after(root);
    placed = true;
    model.send({ kind: "placed" });
  };
  look();
  return () => {
    root.remove();
    if (placed) model.send({ kind: "gone" });
  };
}

const NO_ANSWER = "no answer yet: the kernel is busy, or gone; this is what was here last";
