// Building the document. Text goes in as text, never as HTML.

export const $ = (id) => document.getElementById(id);

/** An element; `properties` are the element's own (className, textContent, href), `children` elements or texts. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function button(text, onClick, className = "") {
  const made = element("button", { type: "button", textContent: text, className });
  made.addEventListener("click", () => onClick(made));
  return made;
}

export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Without TLS there is no clipboard but this.
  const field = element("textarea", { value: text, className: "seen-not" });
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  if (!copied) throw new Error("not copied");
}
