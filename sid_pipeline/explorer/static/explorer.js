// The explorer's behaviour. Every text of the catalogue reaches the page through textContent, never as markup.
"use strict";
(() => {
  const { catalogue, products, flavours } = window.SID_DATA;
  const [ID, TITLE, BRAND, CATEGORY, TEXT] = [0, 1, 2, 3, 4];
  const SHOWN = 200;
  const cut = catalogue.held < catalogue.total;
  const number = new Intl.NumberFormat("en");

  // ------------------------------------------------------------------ data

  const parentOf = (prefix) => prefix.split("_").slice(0, -1).join("_");
  const levelOf = (prefix) => prefix.split("_").length;
  const sidOf = (flavour, row) => flavour.codes[row] && flavour.codes[row].join("_");
  const under = (sid, prefix) => sid === prefix || (sid !== null && sid.startsWith(prefix + "_"));

  for (const flavour of flavours) {
    flavour.byPrefix = new Map();
    flavour.children = new Map();
    for (const [prefix, count, name, words, brands] of flavour.prefixes) {
      flavour.byPrefix.set(prefix, { prefix, count, name, words, brands });
      const parent = parentOf(prefix);
      if (!flavour.children.has(parent)) flavour.children.set(parent, []);
      flavour.children.get(parent).push(prefix);
    }
  }
  const rowOf = new Map(products.map((product, row) => [product[ID], row]));
  const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const searchable = products.map((product) => plain(product.slice(0, TEXT + 1).join(" ")));

  function rowsUnder(flavour, prefix) {
    const rows = [];
    for (let row = 0; row < products.length; row += 1) if (under(sidOf(flavour, row), prefix)) rows.push(row);
    return rows;
  }

  function sharedLevels(a, b) {
    let depth = 0;
    while (depth < a.length && a[depth] === b[depth]) depth += 1;
    return depth;
  }

  /** The other products that share most leading codes with a row: [row, shared levels], at most `most`. */
  function neighbours(flavour, row, most) {
    const own = flavour.codes[row];
    if (!own) return [];
    const found = [];
    flavour.codes.forEach((codes, other) => {
      if (!codes || other === row) return;
      const depth = sharedLevels(own, codes);
      if (depth) found.push([other, depth]);
    });
    return found.sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, most);
  }

  // ------------------------------------------------------------- page parts

  /** An element with attributes and children; strings become text nodes. */
  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    for (const child of children.flat(2)) {
      if (child === null || child === "") continue;
      node.appendChild(typeof child === "string" ? document.createTextNode(child) : child);
    }
    return node;
  }

  const address = (...steps) => "#/" + steps.map(encodeURIComponent).join("/");
  const prefixLink = (flavour, prefix, text) => el("a", { href: address("sid", flavour.name, prefix) }, text);
  const productLink = (row) => el("a", { href: address("product", products[row][ID]) }, products[row][TITLE]);
  const nameOf = (flavour, prefix) => (flavour.byPrefix.get(prefix) || { name: "" }).name;
  const countText = (count) => `${number.format(count)} ${count === 1 ? "product" : "products"}`;

  function crumbs(flavour, sid) {
    const codes = sid.split("_");
    return el("ol", { class: "crumbs" }, codes.map((_, end) => {
      const prefix = codes.slice(0, end + 1).join("_");
      return el("li", {}, prefixLink(flavour, prefix, prefix), " ", el("span", { class: "soft" }, nameOf(flavour, prefix)));
    }));
  }

  function productItems(rows, note) {
    return el("ul", { class: "items" }, rows.slice(0, SHOWN).map((row) => el("li", {}, productLink(row),
      el("small", {}, [products[row][ID], products[row][BRAND], products[row][CATEGORY], note ? note(row) : ""]
        .filter(Boolean).join(" · ")))));
  }

  function tooMany(shown, all, where) {
    return shown < all ? el("p", { class: "soft" }, `${number.format(shown)} of ${number.format(all)} shown. ${where}`) : null;
  }

  // ------------------------------------------------------------------ tree

  let current = flavours[0];

  function branch(flavour, prefix) {
    const { name, count } = flavour.byPrefix.get(prefix);
    const node = el("details", {}, el("summary", {}, prefixLink(flavour, prefix, prefix), ` ${name} `,
      el("span", { class: "count" }, number.format(count))));
    // Children are made when a branch is first opened: the whole tree would be too much for a phone.
    node.addEventListener("toggle", () => {
      if (!node.open || node.filled) return;
      node.filled = true;
      const children = flavour.children.get(prefix);
      if (children) {
        node.append(...children.map((child) => branch(flavour, child)));
        return;
      }
      const rows = rowsUnder(flavour, prefix);
      node.append(el("ul", {}, rows.slice(0, SHOWN).map((row) => el("li", {}, productLink(row)))));
      const rest = tooMany(Math.min(rows.length, SHOWN), count, `sid show ${prefix} lists the rest.`);
      if (rest) node.append(rest);
    });
    return node;
  }

  function drawTree() {
    const buttons = flavours.map((flavour) => {
      const button = el("button", { type: "button", "aria-pressed": String(flavour === current) }, flavour.name);
      button.addEventListener("click", () => { current = flavour; drawTree(); });
      return button;
    });
    document.getElementById("flavours").replaceChildren(...buttons);
    const roots = current ? current.children.get("") || [] : [];
    document.getElementById("tree").replaceChildren(...roots.map((prefix) => branch(current, prefix)));
  }

  // ----------------------------------------------------------------- pages

  function startPage() {
    const example = flavours.length && flavours[0].prefixes.length ? flavours[0].prefixes[0][0] : null;
    const figures = [...new Set(flavours.flatMap((flavour) => Object.keys(flavour.headline)))];
    return [
      el("h2", {}, catalogue.title),
      el("p", {}, `${countText(catalogue.total)} as of ${catalogue.as_of_snapshot}. `,
        "A Semantic ID is a path from coarse to fine: products that share leading codes are alike. ",
        example === null ? "" : ["Open the tree, search, or start at ", prefixLink(flavours[0], example, example), "."]),
      cut ? el("p", {}, `This site holds ${countText(catalogue.held)} of them (at most ${catalogue.products_per_prefix} `,
        "of a prefix of two levels); counts are of the whole catalogue. ", el("code", {}, "sid show"), " finds the rest.") : null,
      el("ul", {}, flavours.map((flavour) => el("li", {}, `${flavour.name}, release ${flavour.release}: `,
        `${number.format((flavour.children.get("") || []).length)} prefixes at L1`,
        flavour.without_sid ? `; ${countText(flavour.without_sid)} without a SID` : ""))),
      figures.length ? el("h3", {}, "Headline figures") : null,
      figures.length ? el("div", { class: "scroll" }, el("table", {},
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "figure"),
          flavours.map((flavour) => el("th", { scope: "col" }, flavour.name)))),
        el("tbody", {}, figures.map((key) => el("tr", {}, el("th", { scope: "row" }, key.replaceAll("_", " ")),
          flavours.map((flavour) => el("td", {}, key in flavour.headline
            ? String(Number(flavour.headline[key].toPrecision(4))) : "-"))))))) : null,
    ];
  }

  function prefixPage(flavour, prefix) {
    const entry = flavour.byPrefix.get(prefix);
    const rows = rowsUnder(flavour, prefix);
    if (!entry && !rows.length) return notFound(`No product is under ${prefix} in ${flavour.name}.`);
    const count = entry ? entry.count : rows.length;
    const children = flavour.children.get(prefix) || [];
    return [
      crumbs(flavour, prefix),
      el("h2", {}, el("code", {}, prefix), " ", entry ? entry.name : ""),
      el("p", { class: "soft" }, `${flavour.name}, release ${flavour.release}; level ${levelOf(prefix)} of ${flavour.levels}; `,
        entry ? countText(count) : `${countText(count)} held here`),
      entry && (entry.words || entry.brands) ? el("dl", {},
        entry.words ? [el("dt", {}, "words"), el("dd", {}, entry.words)] : [],
        entry.brands ? [el("dt", {}, "brands"), el("dd", {}, entry.brands)] : []) : null,
      children.length ? el("h3", {}, "One level deeper") : null,
      el("ul", { class: "items" }, children.slice(0, SHOWN).map((child) => {
        const below = flavour.byPrefix.get(child);
        return el("li", {}, prefixLink(flavour, child, child), ` ${below.name} `, el("span", { class: "count" }, number.format(below.count)));
      })),
      tooMany(Math.min(children.length, SHOWN), children.length, "The tree lists all."),
      el("h3", {}, "Products"),
      productItems(rows),
      tooMany(Math.min(rows.length, SHOWN), count, `sid show ${prefix} lists the rest.`),
    ];
  }

  function productPage(row) {
    const product = products[row];
    return [
      el("h2", {}, product[TITLE]),
      el("dl", {}, [["product id", product[ID]], ["brand", product[BRAND]], ["category", product[CATEGORY] || "none"], ["text", product[TEXT]]]
        .filter(([, value]) => value).flatMap(([label, value]) => [el("dt", {}, label), el("dd", {}, value)])),
      el("div", { class: "sides" }, flavours.map((flavour) => {
        const sid = sidOf(flavour, row);
        const near = neighbours(flavour, row, 15);
        const depth = new Map(near);
        return el("section", { "aria-label": flavour.name },
          el("h3", {}, flavour.name, " ", el("code", {}, sid || "")),
          sid ? crumbs(flavour, sid) : el("p", {}, "This product has no SID in this flavour."),
          sid ? el("p", { class: "soft" }, near.length ? "Nearest by code:" : "No other product shares its first code.") : null,
          productItems(near.map(([other]) => other), (other) => `shares ${depth.get(other)} of ${flavour.levels} levels`));
      })),
    ];
  }

  function searchPage(query) {
    const words = plain(query).split(/\s+/).filter(Boolean);
    const sid = /^\d+(_\d+)*$/.test(query) ? query : null;
    const exact = rowOf.get(query);
    const rows = [];
    searchable.forEach((text, row) => { if (row !== exact && words.every((word) => text.includes(word))) rows.push(row); });
    const prefixes = flavours.flatMap((flavour) => flavour.prefixes
      .filter(([prefix, , name]) => (sid ? prefix === sid : words.every((word) => plain(name).includes(word))))
      .slice(0, 10).map(([prefix, count, name]) => ({ flavour, prefix, count, name })));
    const total = rows.length + (exact === undefined ? 0 : 1);
    const found = exact === undefined ? rows : [exact, ...rows];
    return [
      el("h2", {}, `Search: ${query}`),
      prefixes.length ? el("h3", {}, "Prefixes") : null,
      el("ul", { class: "items" }, prefixes.map(({ flavour, prefix, count, name }) => el("li", {},
        prefixLink(flavour, prefix, prefix), ` ${name} `, el("small", {}, `${flavour.name} · ${countText(count)}`)))),
      el("h3", {}, countText(total)),
      productItems(found),
      tooMany(Math.min(total, SHOWN), total, "Add a word to narrow it down."),
      !total && !prefixes.length ? el("p", {}, "Nothing here matches. ", cut ? "Not every product is held: try sid show." : "") : null,
    ];
  }

  const notFound = (sentence) => [el("h2", {}, "Not found"), el("p", {}, sentence, cut ? " Not every product is held: try sid show." : "")];

  // --------------------------------------------------------------- routing

  function steps() {
    try {
      return location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
    } catch (error) {
      if (!(error instanceof URIError)) throw error;
      return ["unreadable"];
    }
  }

  function page([kind, first, second]) {
    if (!kind) return startPage();
    if (kind === "search") return searchPage(first || "");
    if (kind === "product") {
      return rowOf.has(first) ? productPage(rowOf.get(first)) : notFound(`No product has the id ${first}.`);
    }
    const flavour = flavours.find((candidate) => candidate.name === first);
    if (kind === "sid" && flavour && second) return prefixPage(flavour, second);
    return notFound("This address leads nowhere.");
  }

  function show(event) {
    const detail = document.getElementById("detail");
    if (location.hash === "#detail") { detail.focus(); return; }
    detail.replaceChildren(...page(steps()).flat().filter((node) => node !== null));
    // Only a step of the reader's moves the focus, not the first drawing.
    if (event) { detail.focus(); window.scrollTo(0, 0); }
  }

  document.title = `${catalogue.title}: Semantic ID explorer`;
  document.getElementById("title").textContent = catalogue.title;
  document.getElementById("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const query = document.getElementById("query").value.trim();
    if (query) location.hash = address("search", query);
  });
  window.addEventListener("hashchange", show);
  drawTree();
  show();
})();
