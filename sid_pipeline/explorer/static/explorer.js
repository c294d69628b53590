// The explorer's behaviour. Preact draws the pages, so every text of the catalogue reaches them as a text node, never
// as markup; Observable Plot draws the charts. Addresses: #/, #/health/FLAVOUR, #/fragmented/FLAVOUR,
// #/suspicious/FLAVOUR, #/flavours, #/changes/FLAVOUR, #/tree/FLAVOUR, #/sid/FLAVOUR/PREFIX, #/product/ID, #/search/WORDS.
"use strict";
(() => {
  const { html, render, useEffect, useRef, useState } = window.htmPreact;
  const { Plot } = window;
  const { catalogue, products, flavours } = window.SID_DATA;
  const [ID, TITLE, BRAND, CATEGORY, TEXT] = [0, 1, 2, 3, 4];
  const SHOWN = 200;
  const cut = catalogue.held < catalogue.total;
  const number = new Intl.NumberFormat("en");
  const percent = (share, digits = 1) => (share === null ? "-" : `${(100 * share).toFixed(digits)} %`);

  // ------------------------------------------------------------------ data

  const parentOf = (prefix) => prefix.split("_").slice(0, -1).join("_");
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

  const address = (...steps) => "#/" + steps.map(encodeURIComponent).join("/");
  const nameOf = (flavour, prefix) => (flavour.byPrefix.get(prefix) || { name: "" }).name;
  const countText = (count) => `${number.format(count)} ${count === 1 ? "product" : "products"}`;
  const levelsText = (level) => (level === 1 ? "L1" : `L1..L${level}`);

  /** A SID or prefix; a token after the codes, which tells products of one SID apart, has no page. */
  const Sid = ({ flavour, prefix }) => {
    const codes = prefix.split("_").slice(0, flavour.levels).join("_");
    return html`<a class="sid" href=${address("sid", flavour.name, codes)}>${prefix}</a>`;
  };

  const ProductLink = ({ id, text }) => (rowOf.has(id)
    ? html`<a href=${address("product", id)}>${text ?? products[rowOf.get(id)][TITLE]}</a>` : html`<span>${text ?? id}</span>`);

  /** A product by its title, the text that was embedded below it, cut. */
  const WithText = ({ id, text }) => (rowOf.has(id) && products[rowOf.get(id)][TITLE] !== text
    ? html`<${ProductLink} id=${id} /><small>${text.length > 160 ? `${text.slice(0, 159)}…` : text}</small>` : html`<${ProductLink} id=${id} text=${text} />`);

  /** The deepest prefix of a SID that has a name, as words. */
  function nameOfSid(flavour, sid) {
    for (let prefix = sid; prefix; prefix = parentOf(prefix)) {
      const name = nameOf(flavour, prefix);
      if (name) return name;
    }
    return "";
  }

  function Crumbs({ flavour, sid }) {
    const codes = sid.split("_");
    return html`<ol class="crumbs">${codes.map((_, end) => {
      const prefix = codes.slice(0, end + 1).join("_");
      return html`<li><${Sid} flavour=${flavour} prefix=${prefix} /> <span>${nameOf(flavour, prefix)}</span></li>`;
    })}</ol>`;
  }

  const Products = ({ rows, note }) => html`<ul class="items">${rows.slice(0, SHOWN).map((row) => html`<li>
    <${ProductLink} id=${products[row][ID]} />
    <small>${[products[row][ID], products[row][BRAND], products[row][CATEGORY]].filter(Boolean).join(" · ")}</small>
    ${note ? note(row) : null}</li>`)}</ul>`;

  const Rest = ({ shown, all, children }) => (shown < all
    ? html`<p class="soft">${number.format(shown)} of ${number.format(all)} shown. ${children}</p>` : null);

  const Scroll = ({ label, children }) => html`<div class="scroll" role="region" aria-label=${label} tabindex="0">${children}</div>`;

  const Table = ({ label, head, rows }) => html`<${Scroll} label=${label}><table>
    <thead><tr>${head.map((cell) => html`<th scope="col">${cell}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr>${row.map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody></table><//>`;

  /** A chart by Plot; drawn again when the space for it changes. */
  function Chart({ label, caption, options }) {
    const place = useRef(null);
    useEffect(() => {
      const node = place.current;
      const draw = () => {
        if (node.clientWidth < 120) return; // not laid out yet; the observer calls again
        const chart = Plot.plot({ ...options(node.clientWidth), width: node.clientWidth, className: "plot" });
        chart.setAttribute("role", "img");
        chart.setAttribute("aria-label", label);
        node.replaceChildren(chart);
      };
      draw();
      let width = node.clientWidth;
      const observer = new ResizeObserver(() => {
        if (node.clientWidth !== width) { width = node.clientWidth; draw(); }
      });
      observer.observe(node);
      return () => observer.disconnect();
    }, [label, options]);
    return html`<figure><figcaption>${caption}</figcaption><div ref=${place}></div></figure>`;
  }

  const SHADES = { "this release": "var(--accent)", "residual k-means": "var(--other)", "category prefix": "var(--third)",
    "random codes": "var(--line-strong)" };
  const shade = (table) => SHADES[table] || "var(--warn)";

  function NearDuplicates({ flavour }) {
    const { share90, pairs90, tables } = flavour.report;
    if (!share90.length) return html`<p class="soft">No two of the products looked at are near-duplicates.</p>`;
    const rows = share90.map((row) => ({ ...row, name: levelsText(row.level) }));
    const options = (width) => ({
      height: 44 + 17 * rows.length + 12 * Math.max(...rows.map((row) => row.level)),
      marginLeft: width < 420 ? 100 : 118, marginRight: 92,
      x: { domain: [0, 1.1], axis: null }, y: { domain: tables, label: null, tickSize: 0 },
      fy: { label: null, padding: 0.12, domain: [...new Set(rows.map((row) => row.name))] },
      marks: [
        Plot.barX(rows, { x: "share", y: "table", fy: "name", fill: (row) => shade(row.table), rx: 2, insetTop: 1.5, insetBottom: 1.5 }),
        Plot.text(rows, { x: "share", y: "table", fy: "name", text: (row) => percent(row.share, 0), dx: 4, textAnchor: "start" }),
        Plot.ruleX([0], { stroke: "var(--line-strong)" }),
      ],
    });
    return html`<${Chart} label=${`Near-duplicates that share leading codes, ${flavour.name}`} options=${options}
      caption=${`Of ${number.format(pairs90)} pairs with cosine of at least 0.9: how many have the same leading codes`} />`;
  }

  function Agreement({ flavour }) {
    const rows = flavour.report.agreement;
    if (!rows.length) return null;
    const options = (width) => ({
      height: 44 + 30 * new Set(rows.map((row) => row.prefix)).size, marginLeft: 64, marginTop: 28,
      x: { label: null, tickFormat: (level) => (width < 420 ? `tree ${level}` : `tree level ${level}`), axis: "top", tickSize: 0 },
      y: { label: null, tickFormat: levelsText, tickSize: 0 },
      marks: [
        Plot.cell(rows, { x: "tree", y: "prefix", fill: "var(--accent)", fillOpacity: (row) => Math.max(0.06, 0.75 * row.ami), inset: 1, rx: 3 }),
        Plot.text(rows, { x: "tree", y: "prefix", text: (row) => row.ami.toFixed(2), fill: "var(--ink)" }),
      ],
    });
    return html`<${Chart} label=${`Agreement of prefixes with the taxonomy, ${flavour.name}`} options=${options}
      caption="Agreement of each prefix level with each level of the category tree (AMI: 0 is chance, 1 the same grouping)" />`;
  }

  function CodeUse({ flavour, level }) {
    const counts = flavour.report.code_counts[level - 1];
    const used = counts.filter(Boolean).length;
    const top = Math.log1p(Math.max(...counts));
    const columns = 32;
    const cells = counts.map((count, code) => ({ code, count, x: code % columns, y: Math.floor(code / columns) }));
    const options = (width) => ({
      height: Math.max(40, (width / columns) * Math.ceil(counts.length / columns)), margin: 1,
      x: { axis: null, domain: d3range(columns) }, y: { axis: null, domain: d3range(Math.ceil(counts.length / columns)) },
      marks: [
        Plot.cell(cells, { x: "x", y: "y", inset: 0.6, rx: 1, fill: (c) => (c.count ? "var(--accent)" : "none"),
          fillOpacity: (c) => (c.count ? 0.15 + (0.85 * Math.log1p(c.count)) / top : 0), stroke: (c) => (c.count ? "none" : "var(--warn)"),
          href: level === 1 ? (c) => (c.count ? address("sid", flavour.name, String(c.code)) : null) : undefined,
          title: (c) => `code ${c.code}${level === 1 && c.count ? ` ${nameOf(flavour, String(c.code))}` : ""}: ${countText(c.count)}` }),
      ],
    });
    return html`<${Chart} label=${`Use of the codes of level ${level}, ${flavour.name}`} options=${options}
      caption=${`L${level}: ${number.format(used)} of ${number.format(counts.length)} codes hold products`} />`;
  }
  const d3range = (n) => Array.from({ length: n }, (_, i) => i);

  /** Rows of figures beside the baselines; small print is the interval. */
  function Figures({ report, group }) {
    const rows = report.figures.filter((figure) => figure.group === group);
    return html`<${Scroll} label=${group}><table class="figures">
      <thead><tr><th scope="col">figure</th>${report.tables.map((table) => html`<th scope="col">${table}</th>`)}</tr></thead>
      <tbody>${rows.map((figure) => html`<tr><th scope="row">${figure.label}<small>${figure.meaning}${figure.better ? ` (${figure.better} is better)` : ""}</small></th>
        ${figure.cells.map((cell, place) => html`<td class=${place ? "" : "ours"}>${cell.shown}${!place && cell.interval ? html`<small>${cell.interval}</small>` : null}</td>`)}
      </tr>`)}</tbody></table><//>`;
  }

  const WithFlavours = ({ kind, current }) => (flavours.length < 2 ? null : html`<nav class="switch" aria-label="Flavour">
    ${flavours.map((flavour) => html`<a href=${address(kind, flavour.name)} aria-current=${flavour === current ? "page" : undefined}>${flavour.name}</a>`)}</nav>`);

  const NoReport = () => html`<p>There is no report of this flavour in this site: materialise report, then explorer.</p>`;

  // ------------------------------------------------------------------ tree

  function Branch({ flavour, prefix }) {
    const [open, setOpen] = useState(false);
    const { name, count } = flavour.byPrefix.get(prefix);
    return html`<li><div class="branch">
      <button type="button" class="toggle" aria-expanded=${open} aria-label=${`Expand ${prefix}`} onClick=${() => setOpen(!open)}></button>
      <a href=${address("sid", flavour.name, prefix)}><code>${prefix}</code> ${name}</a>
      <span class="count">${number.format(count)}</span></div>
      ${open ? html`<${Twigs} flavour=${flavour} prefix=${prefix} count=${count} />` : null}</li>`;
  }

  /** What lies below an open branch; made when it is first opened: the whole tree would be too much for a phone. */
  function Twigs({ flavour, prefix, count }) {
    const children = flavour.children.get(prefix);
    if (children) return html`<ul>${children.map((child) => html`<${Branch} key=${child} flavour=${flavour} prefix=${child} />`)}</ul>`;
    const rows = rowsUnder(flavour, prefix);
    return html`<ul>${rows.slice(0, SHOWN).map((row) => html`<li class="leaf"><${ProductLink} id=${products[row][ID]} /></li>`)}</ul>
      <${Rest} shown=${Math.min(rows.length, SHOWN)} all=${count}><code>sid show ${prefix}</code> lists the rest.<//>`;
  }

  const Tree = ({ flavour }) => html`<ul class="tree">${(flavour.children.get("") || []).map((prefix) => html`
    <${Branch} key=${`${flavour.name} ${prefix}`} flavour=${flavour} prefix=${prefix} />`)}</ul>`;

  // ----------------------------------------------------------------- pages

  const MAIN_FIGURES = ["distinct_share", "share90_l1", "share90_l2", "spearman_random_and_neighbour", "ami_l1_top", "ami_l2_leaf",
    "fragmentation_l2", "error_propagation_top"];

  function Start() {
    const first = flavours.find((flavour) => flavour.prefixes.length);
    const reported = flavours.filter((flavour) => flavour.report);
    return html`<h1>${catalogue.title}</h1>
      <p class="lead">${countText(catalogue.total)} as of ${catalogue.as_of_snapshot}. A Semantic ID is a path from coarse to fine:
        products that share leading codes are alike. ${first ? html`Open the tree, search, or start at <${Sid} flavour=${first} prefix=${first.prefixes[0][0]} />.` : null}</p>
      ${cut ? html`<p>This site holds ${countText(catalogue.held)} of them (at most ${catalogue.products_per_prefix} of a prefix of two
        levels); counts are of the whole catalogue. <code>sid show</code> finds the rest.</p>` : null}
      <div class="cards">${flavours.map((flavour) => html`<section class="card" aria-label=${flavour.name}>
        <h2>${flavour.name}</h2>
        <p class="soft">Release ${flavour.release}; ${number.format((flavour.children.get("") || []).length)} prefixes at L1${
          flavour.without_sid ? `; ${countText(flavour.without_sid)} without a SID` : ""}</p>
        ${flavour.report ? html`<dl class="facts">${flavour.report.figures.filter((figure) => MAIN_FIGURES.includes(figure.key)).map((figure) => html`
          <div title=${figure.meaning}><dt>${figure.label}</dt><dd>${figure.cells[0].shown}</dd>
          <dd class="soft">k-means ${figure.cells[flavour.report.tables.indexOf("residual k-means")].shown}</dd></div>`)}</dl>
          <p><a href=${address("health", flavour.name)}>All figures and charts</a></p>` : null}
      </section>`)}</div>
      ${reported.length ? html`<h2>Do near-duplicates stay together?</h2><div class="columns">${reported.map((flavour) => html`
        <section aria-label=${flavour.name}><h3>${flavour.name}</h3><${NearDuplicates} flavour=${flavour} /></section>`)}</div>` : null}`;
  }

  function Health({ flavour }) {
    if (!flavour.report) return html`<h1>Health</h1><${WithFlavours} kind="health" current=${flavour} /><${NoReport} />`;
    const { report } = flavour;
    return html`<h1>Health of ${flavour.name}</h1><${WithFlavours} kind="health" current=${flavour} />
      <p class="lead">Is it a good vocabulary? This release beside plain baselines on the same ${countText(report.items)}${
        report.population ? `, a sample of ${number.format(report.population)}` : ""}.</p>
      <h2>Do near-duplicates stay together?</h2><${NearDuplicates} flavour=${flavour} />
      <h2>How the codes are used</h2><p class="soft">One square a code, darker with more products; an outline is an unused code.</p>
      <div class="columns">${report.code_counts.map((_, level) => html`<${CodeUse} key=${`${flavour.name} ${level}`} flavour=${flavour} level=${level + 1} />`)}</div>
      ${report.agreement.length ? html`<h2>Prefixes and categories</h2><${Agreement} flavour=${flavour} />` : null}
      ${[...new Set(report.figures.map((figure) => figure.group))].map((group) => html`<h2>${group}</h2><${Figures} report=${report} group=${group} />`)}`;
  }

  function Fragmented({ flavour }) {
    const levels = flavour.report ? flavour.report.fragmented : [];
    return html`<h1>Fragmented categories</h1><${WithFlavours} kind="fragmented" current=${flavour} />
      <p class="lead">A category whose products lie under many prefixes: two jars of the same sauce in different branches. Few prefixes
        are good; the effective number hardly counts single strays.</p>
      ${flavour.report ? null : html`<${NoReport} />`}
      ${flavour.report && !levels.length ? html`<p>No product has a category, so nothing can be fragmented.</p>` : null}
      ${levels.map((level) => html`<h2>At ${levelsText(level.prefix_level)}</h2>
        <p>A category is spread over ${level.prefixes_per_leaf.toFixed(1)} prefixes on average; ${percent(level.outside_main)} of the products
          are outside their category's main prefix.</p>
        <${Table} label=${`Most spread categories at ${levelsText(level.prefix_level)}`} head=${["category", "products", "prefixes", "effective", "outside the main one"]}
          rows=${level.worst.map((row) => [html`<a href=${address("search", row.leaf[row.leaf.length - 1])}>${row.leaf.join(" > ")}</a>`,
            number.format(row.items), number.format(row.prefixes), row.effective.toFixed(1), percent(row.outside_main)])} />`)}`;
  }

  function Suspicious({ flavour }) {
    const { report, unusual } = flavour;
    return html`<h1>Suspicious products</h1><${WithFlavours} kind="suspicious" current=${flavour} />
      <p class="lead">Where a person should look first: products among products of another category, products unlike anything that the
        codebook was trained on, and one SID for texts that are not alike.</p>
      ${report ? null : html`<${NoReport} />`}
      <h2>Among products of another category</h2>
      ${report && report.misplaced.length ? html`<p class="soft">More than half of the other products under the same ${levelsText(report.misplaced_level)} are of one
        category that is not theirs: a doubtful description, a doubtful category, or a border that the codes do not see.</p>
        <${Table} label="Products among products of another category" head=${["product", "SID", "its category", "its fellows"]}
          rows=${report.misplaced.map((row) => [html`<${WithText} id=${row.product_id} text=${row.text} />`, html`<${Sid} flavour=${flavour} prefix=${row.sid} />`,
            row.category.join(" > "), `${row.majority_items} of ${row.other_items} in ${row.majority.join(" > ")}`])} />` : html`<p>None found.</p>`}
      <h2>Unlike anything in training</h2>
      ${unusual.length ? html`<p class="soft">Farther from their codewords than any product that the codebook was trained on: their SID is a guess.</p>
        <${Table} label="Products unlike anything in training" head=${["product", "SID", "distance"]}
          rows=${unusual.map((row) => [html`<${ProductLink} id=${row.product_id} />`,
            rowOf.has(row.product_id) && sidOf(flavour, rowOf.get(row.product_id)) ? html`<${Sid} flavour=${flavour} prefix=${sidOf(flavour, rowOf.get(row.product_id))} />` : "",
            row.distance.toPrecision(3)])} />` : html`<p>None found.</p>`}
      <h2>One SID, different texts</h2>
      ${report && report.different_texts.worst.length ? html`<p class="soft">${countText(report.different_texts.items)} share a SID with another text. Sharing
        is allowed; these are the SIDs whose products are least alike.</p>
        <${Table} label="One SID, different texts" head=${["SID", "products", "mean cosine", "texts"]}
          rows=${report.different_texts.worst.map((row) => [html`<${Sid} flavour=${flavour} prefix=${row.sid} />`, number.format(row.items), row.mean_cosine.toFixed(2),
            html`<ul class="plain">${row.products.map((product) => html`<li><${ProductLink} id=${product.product_id} /></li>`)}</ul>`])} />` : html`<p>None found.</p>`}`;
  }

  function Comparison() {
    const found = catalogue.comparison;
    if (!found) return html`<h1>Flavours side by side</h1><p>This release has fewer than two flavours, so there is nothing to compare.</p>`;
    const [a, b] = [found.a, found.b].map((name) => flavours.find((flavour) => flavour.name === name));
    const rows = found.levels.flatMap((row) => [[found.a, row.same_leaf_a], [found.b, row.same_leaf_b]]
      .filter(([, share]) => share !== null).map(([flavour, share]) => ({ level: levelsText(row.level), flavour, share })));
    const shades = { [found.a]: "var(--accent)", [found.b]: "var(--third)" };
    const options = (width) => ({
      height: 40 + 46 * found.levels.length, marginLeft: width < 420 ? 84 : 100, marginRight: 92,
      x: { domain: [0, 1.1], axis: null }, y: { label: null, tickSize: 0, domain: [found.a, found.b] },
      fy: { label: null, domain: found.levels.map((row) => levelsText(row.level)), padding: 0.15 },
      marks: [
        Plot.barX(rows, { x: "share", y: "flavour", fy: "level", fill: (row) => shades[row.flavour], rx: 2, insetTop: 1.5, insetBottom: 1.5 }),
        Plot.text(rows, { x: "share", y: "flavour", fy: "level", text: (row) => percent(row.share, 0), dx: 4, textAnchor: "start" }),
        Plot.ruleX([0], { stroke: "var(--line-strong)" }),
      ],
    });
    return html`<h1>Flavours side by side</h1>
      <p class="lead">${found.a} and ${found.b} on the same ${countText(found.items)}. A flavour whose groups are of one category holds
        substitutes together; one whose groups reach across categories holds together what is bought or used together.</p>
      ${rows.length ? html`<${Chart} label="Grouped pairs of one leaf category, by flavour" options=${options}
        caption="Of the pairs that share leading codes: how many are of one leaf category" />` : null}
      <${Table} label="Agreement of the flavours" head=${["level", "agreement (AMI)", "pairs grouped by both", `only ${found.a}`, `only ${found.b}`]}
        rows=${found.levels.map((row) => [levelsText(row.level), row.ami === null ? "-" : row.ami.toFixed(3), ...[row.both, row.only_a, row.only_b].map((n) => number.format(n))])} />
      ${(found.categories || []).filter((side) => side.pairs.length).map((side) => html`<h2>Categories that ${side.grouped_by} puts side by side</h2>
        <p class="soft">Pairs of leaf categories whose products share L1 far more often in ${side.grouped_by} than in ${side.other}.</p>
        <${Table} label=${`Categories side by side in ${side.grouped_by}`} head=${["category", "and", `share L1, ${side.grouped_by}`, `share L1, ${side.other}`]}
          rows=${side.pairs.map((pair) => [pair.first.join(" > "), pair.second.join(" > "), percent(pair.share), percent(pair.other_share)])} />`)}
      ${found.examples.filter((side) => side.pairs.length).map((side) => html`<h2>Held together by ${side.grouped_by} only</h2>
        <${Table} label=${`Held together by ${side.grouped_by} only`} head=${["product", "and", `in ${found.a}`, `in ${found.b}`, "levels"]}
          rows=${side.pairs.map((pair) => [...pair.products.map((product) => html`<${ProductLink} id=${product.product_id} text=${product.text} /><small>${product.category.join(" > ")}</small>`),
            ...[[a, "sid_a"], [b, "sid_b"]].map(([flavour, key]) => html`<ul class="plain">${pair.products.map((product) => html`<li><${Sid} flavour=${flavour} prefix=${product[key]} /></li>`)}</ul>`), pair.shared_levels])} />`)}`;
  }

  const REASONS = { new: "new product", text_changed: "its text changed", recleaned: "its cleaning changed", recoded: "another codebook", returned: "came back", withdrawn: "withdrawn" };
  const reasonText = (reason) => REASONS[reason] || reason || "unknown";

  function Changes({ flavour }) {
    const found = flavour.previous;
    return html`<h1>What changed</h1><${WithFlavours} kind="changes" current=${flavour} />
      ${found ? html`<p class="lead">Against ${found.against}: ${number.format(found.common)} products are in both, ${number.format(found.added)} are new,
          ${" "}${number.format(found.withdrawn)} were withdrawn, and ${number.format(found.moved)} have another SID.</p>
        ${Object.keys(found.reasons).length ? html`<p>Why SIDs moved: ${Object.entries(found.reasons).map(([reason, count]) => `${reasonText(reason)} ${number.format(count)}`).join(", ")}.</p>` : null}
        ${found.comparable === false ? html`<p>The codes have another number of levels than those before: they are not comparable level by level.</p>` : null}
        ${found.common && found.levels.length ? html`<${Table} label="What was kept, by level" head=${["level", "kept the prefix", "first changed here", "agreement of the groups (AMI)"]}
          rows=${found.levels.map((row) => [levelsText(row.level), percent(row.kept_prefix), number.format(row.first_changed_here), row.grouping_ami === null ? "-" : row.grouping_ami.toFixed(3)])} />` : null}
        ${found.moved_examples.length ? html`<h2>Moved</h2><${Table} label="Moved products" head=${["product", "before", "now", "why"]}
          rows=${found.moved_examples.map((row) => [html`<${ProductLink} id=${row.product_id} text=${row.title || row.product_id} />`, html`<code>${row.old}</code>`,
            html`<${Sid} flavour=${flavour} prefix=${row.new} />`, reasonText(row.why)])} />` : null}
        ${found.added_examples.length ? html`<h2>New</h2><${Table} label="New products" head=${["product", "SID", "among"]}
          rows=${found.added_examples.map((row) => [html`<${ProductLink} id=${row.product_id} text=${row.title || row.product_id} />`, html`<${Sid} flavour=${flavour} prefix=${row.sid} />`, nameOfSid(flavour, parentOf(row.sid))])} />` : null}
        ${found.withdrawn_examples.length ? html`<h2>Withdrawn</h2><${Table} label="Withdrawn products" head=${["product", "was"]}
          rows=${found.withdrawn_examples.map((row) => [row.title || row.product_id, html`<code>${row.sid}</code>`])} />` : null}`
    : html`<p>This is the first publication of ${flavour.name}: there is nothing before it to compare with.</p>`}`;
  }

  const TreePage = ({ flavour }) => html`<h1>Tree of ${flavour.name}</h1><${WithFlavours} kind="tree" current=${flavour} /><${Tree} flavour=${flavour} />`;

  function Prefix({ flavour, prefix }) {
    const entry = flavour.byPrefix.get(prefix);
    const rows = rowsUnder(flavour, prefix);
    if (!entry && !rows.length) return html`<${NotFound}>No product is under ${prefix} in ${flavour.name}.<//>`;
    const count = entry ? entry.count : rows.length;
    const children = flavour.children.get(prefix) || [];
    return html`<${Crumbs} flavour=${flavour} sid=${prefix} />
      <h1><code>${prefix}</code> ${entry ? entry.name : ""}</h1>
      <p class="soft">${flavour.name}, release ${flavour.release}; level ${prefix.split("_").length} of ${flavour.levels}; ${countText(count)}${entry ? "" : " held here"}</p>
      ${entry && (entry.words || entry.brands) ? html`<dl class="pairs">${entry.words ? html`<dt>words</dt><dd>${entry.words}</dd>` : null}
        ${entry.brands ? html`<dt>brands</dt><dd>${entry.brands}</dd>` : null}</dl>` : null}
      ${children.length ? html`<h2>One level deeper</h2><ul class="items">${children.slice(0, SHOWN).map((child) => html`<li><${Sid} flavour=${flavour} prefix=${child} />
        ${" "}${nameOf(flavour, child)} <span class="count">${number.format(flavour.byPrefix.get(child).count)}</span></li>`)}</ul>
        <${Rest} shown=${Math.min(children.length, SHOWN)} all=${children.length}>The tree lists all.<//>` : null}
      <h2>Products</h2><${Products} rows=${rows} />
      <${Rest} shown=${Math.min(rows.length, SHOWN)} all=${count}><code>sid show ${prefix}</code> lists the rest.<//>`;
  }

  function Levels({ depth, of }) {
    return html`<span class="levels" role="img" aria-label=${`shares ${depth} of ${of} levels`}>${d3range(of).map((level) => html`<i class=${level < depth ? "on" : ""}></i>`)}</span>`;
  }

  function Product({ row }) {
    const product = products[row];
    const facts = [["product id", product[ID]], ["brand", product[BRAND]], ["category", product[CATEGORY] || "none"], ["text", product[TEXT]]];
    return html`<h1>${product[TITLE]}</h1>
      <dl class="pairs">${facts.filter(([, value]) => value).map(([label, value]) => html`<dt>${label}</dt><dd>${value}</dd>`)}</dl>
      <div class="columns">${flavours.map((flavour) => {
        const sid = sidOf(flavour, row);
        const near = neighbours(flavour, row, 15);
        const depth = new Map(near);
        return html`<section aria-label=${flavour.name}><h2>${flavour.name} ${sid ? html`<code>${sid}</code>` : null}</h2>
          ${sid ? html`<${Crumbs} flavour=${flavour} sid=${sid} />
            <p class="soft">${near.length ? "Nearest by code; the squares are the levels shared:" : "No other product shares its first code."}</p>
            <${Products} rows=${near.map(([other]) => other)} note=${(other) => html`<${Levels} depth=${depth.get(other)} of=${flavour.levels} />`} />`
          : html`<p>This product has no SID in this flavour.</p>`}</section>`;
      })}</div>`;
  }

  function Search({ query }) {
    const words = plain(query).split(/\s+/).filter(Boolean);
    const sid = /^\d+(_\d+)*$/.test(query) ? query : null;
    const exact = rowOf.get(query);
    const rows = exact === undefined ? [] : [exact];
    searchable.forEach((text, row) => { if (row !== exact && words.every((word) => text.includes(word))) rows.push(row); });
    const prefixes = flavours.flatMap((flavour) => flavour.prefixes
      .filter(([prefix, , name]) => (sid ? prefix === sid : words.every((word) => plain(name).includes(word))))
      .slice(0, 10).map(([prefix, count, name]) => ({ flavour, prefix, count, name })));
    return html`<h1>Search: ${query}</h1>
      ${prefixes.length ? html`<h2>Prefixes</h2><ul class="items">${prefixes.map(({ flavour, prefix, count, name }) => html`<li>
        <${Sid} flavour=${flavour} prefix=${prefix} /> ${name} <small>${flavour.name} · ${countText(count)}</small></li>`)}</ul>` : null}
      ${!rows.length && !prefixes.length ? html`<p>Nothing here matches. ${cut ? "Not every product is held: try sid show." : ""}</p>`
    : html`<h2>${countText(rows.length)}</h2><${Products} rows=${rows} />
        <${Rest} shown=${Math.min(rows.length, SHOWN)} all=${rows.length}>Add a word to narrow it down.<//>`}`;
  }

  const NotFound = ({ children }) => html`<h1>Not found</h1><p>${children} ${cut ? "Not every product is held: try sid show." : ""}</p>`;

  // --------------------------------------------------------------- routing

  const OF_FLAVOUR = { health: Health, fragmented: Fragmented, suspicious: Suspicious, changes: Changes, tree: TreePage };
  const TABS = [["", "Overview"], ["health", "Health"], ["fragmented", "Fragmented"], ["suspicious", "Suspicious"], ["flavours", "Flavours"], ["changes", "Changes"], ["tree", "Tree"]];

  function steps() {
    try {
      return location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
    } catch (error) {
      if (!(error instanceof URIError)) throw error;
      return ["unreadable"];
    }
  }

  function page([kind, first, second], flavour) {
    if (!kind) return html`<${Start} />`;
    if (kind === "search") return html`<${Search} query=${first || ""} />`;
    if (kind === "flavours") return html`<${Comparison} />`;
    if (kind === "product") {
      return rowOf.has(first) ? html`<${Product} row=${rowOf.get(first)} />` : html`<${NotFound}>No product has the id ${first}.<//>`;
    }
    if (flavour && Object.hasOwn(OF_FLAVOUR, kind)) return html`<${OF_FLAVOUR[kind]} flavour=${flavour} />`;
    if (kind === "sid" && flavour && second) return html`<${Prefix} flavour=${flavour} prefix=${second} />`;
    return html`<${NotFound}>This address leads nowhere.<//>`;
  }

  function App() {
    const [at, setAt] = useState(steps());
    const [current, setCurrent] = useState(flavours[0]);
    const main = useRef(null);
    const moved = useRef(false);
    useEffect(() => {
      const follow = () => {
        if (location.hash === "#main") { main.current.focus(); return; }
        moved.current = true;
        setAt(steps());
      };
      window.addEventListener("hashchange", follow);
      return () => window.removeEventListener("hashchange", follow);
    }, []);
    const [kind, first] = at;
    // A page that names no flavour shows the one that was looked at last.
    const named = flavours.find((flavour) => flavour.name === first) || (first === undefined ? current : undefined);
    useEffect(() => { if (named && named !== current) setCurrent(named); }, [named]);
    useEffect(() => {
      // Only a step of the reader's moves the focus, not the first drawing.
      if (moved.current) { main.current.focus({ preventScroll: true }); window.scrollTo(0, 0); }
    }, [at]);
    const search = (event) => {
      event.preventDefault();
      const query = new FormData(event.target).get("query").trim();
      if (query) location.hash = address("search", query);
    };
    return html`<a class="skip" href="#main">Skip to the content</a>
      <header>
        <a class="home" href="#/">${catalogue.title}</a>
        <form role="search" onSubmit=${search}>
          <label for="query" class="hidden">Search by word, product id or SID</label>
          <input id="query" name="query" type="search" autocomplete="off" placeholder="a word, a product id, or 35_7" />
          <button>Search</button>
        </form>
        <nav class="tabs" aria-label="Pages">${TABS.map(([tab, label]) => html`<a href=${tab && tab !== "flavours" && current ? address(tab, current.name) : address(...[tab].filter(Boolean))}
          class=${tab === "tree" ? "narrow" : ""} aria-current=${tab === kind ? "page" : undefined}>${label}</a>`)}</nav>
      </header>
      <div class="panes">
        <aside aria-label="Tree of prefixes">
          ${flavours.length > 1 ? html`<div class="switch" role="group" aria-label="Flavour of the tree">${flavours.map((flavour) => html`
            <button type="button" aria-pressed=${flavour === current} onClick=${() => setCurrent(flavour)}>${flavour.name}</button>`)}</div>` : null}
          ${current ? html`<${Tree} flavour=${current} />` : null}
        </aside>
        <main id="main" tabindex="-1" ref=${main}>${page(at, named)}</main>
      </div>`;
  }

  document.title = `${catalogue.title}: Semantic ID explorer`;
  render(html`<${App} />`, document.getElementById("app"));
})();
