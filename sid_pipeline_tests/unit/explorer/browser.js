// The least of a browser that the explorer's script needs: prints, for each address, what its page shows.
// Usage: node browser.js SITE_FOLDER '["#/", "#/product/p1"]'
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");

class Text {
  constructor(text) { this.textContent = String(text); }
}

class Element {
  constructor(tag) { Object.assign(this, { tag, attributes: {}, children: [], listeners: {}, open: false }); }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  appendChild(child) { this.children.push(child); return child; }
  append(...children) { this.children.push(...children); }
  replaceChildren(...children) { this.children = children; }
  addEventListener(type, listener) { this.listeners[type] = listener; }
  focus() {}
  get textContent() { return this.children.map((child) => child.textContent).join(""); }
  set textContent(text) { this.children = [new Text(text)]; }
}

const all = (node) => (node instanceof Element ? [node, ...node.children.flatMap(all)] : []);
const [folder, addresses] = process.argv.slice(2);
const byId = new Map(["title", "search", "query", "flavours", "tree", "detail"].map((id) => [id, new Element(id)]));
const listeners = {};
const window = { addEventListener: (type, listener) => { listeners[type] = listener; }, scrollTo() {} };
const location = { hash: "" };
const document = {
  createElement: (tag) => new Element(tag),
  createTextNode: (text) => new Text(text),
  getElementById: (id) => byId.get(id),
};
const context = vm.createContext({ window, document, location });
const html = fs.readFileSync(path.join(folder, "index.html"), "utf8");
for (const [, source, inline] of html.matchAll(/<script(?: src="([^"]+)")?>([^<]*)<\/script>/g)) {
  vm.runInContext(source ? fs.readFileSync(path.join(folder, source), "utf8") : inline, context);
}

const seen = (node) => ({
  text: node.textContent,
  tags: [...new Set(all(node).map((element) => element.tag))],
  links: all(node).map((element) => element.attributes.href).filter(Boolean),
});
const pages = {};
for (const address of JSON.parse(addresses)) {
  if (address.startsWith("?")) {
    byId.get("query").value = address.slice(1);
    byId.get("search").listeners.submit({ preventDefault() {} });
  } else {
    location.hash = address;
  }
  listeners.hashchange({});
  pages[address] = { ...seen(byId.get("detail")), hash: location.hash };
}
// Open every branch of the tree, as a reader would.
for (let opened = true; opened;) {
  const closed = all(byId.get("tree")).filter((element) => element.tag === "details" && !element.open);
  for (const branch of closed) { branch.open = true; branch.listeners.toggle(); branch.listeners.toggle(); }
  opened = closed.length > 0;
}
pages.tree = seen(byId.get("tree"));
process.stdout.write(JSON.stringify(pages));
