// Elements made of data, without HTML in texts: what a site has said is shown as text and never read as markup.

const SVG = "http://www.w3.org/2000/svg";

function made(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false && child !== "") element.append(child);
  }
  return element;
}

/** Return an HTML element: h("p", { class: "note" }, "text", otherElement). */
export const h = (tag, attributes, ...children) => made(document.createElement(tag), attributes, children);

/** Return an SVG element. */
export const s = (tag, attributes, ...children) => made(document.createElementNS(SVG, tag), attributes, children);

/** Make the content of an element equal to new nodes, and keep what is the same: focus, selection and scrolling stay. */
export function show(element, ...nodes) {
  align(element, nodes.flat(Infinity).filter((node) => node !== null && node !== undefined && node !== false && node !== ""));
}

function align(element, wanted) {
  const present = [...element.childNodes];
  wanted.forEach((node, place) => {
    const next = typeof node === "string" ? document.createTextNode(node) : node;
    const old = present[place];
    if (!old) element.append(next);
    else if (!alike(old, next)) element.replaceChild(next, old);
    else update(old, next);
  });
  present.slice(wanted.length).forEach((old) => old.remove());
}

function alike(one, other) {
  if (one.nodeType !== other.nodeType || one.nodeName !== other.nodeName) return false;
  return one.nodeType !== Node.ELEMENT_NODE || one.getAttribute("data-key") === other.getAttribute("data-key");
}

function update(old, next) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!next.hasAttribute(name) && name !== "open") old.removeAttribute(name); // a person has opened it
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (!old.hasAttribute("data-kept")) align(old, [...next.childNodes]); // kept: a script of its own fills it
}
