// The page of a report. All texts come from a model: they are only ever set as text, never parsed as markup.
const $ = (id) => document.getElementById(id);
const SVG = $("svg").namespaceURI;
const add = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
};
const put = (node, ...children) => add(node, {}, children);
const make = (create) => (tag, ...parts) => { // make("div.row.group", { title }, child, [children])
  const [name, ...classes] = tag.split("."), plain = parts[0]?.constructor === Object;
  const node = add(create(name), plain ? parts[0] : {}, plain ? parts.slice(1) : parts);
  if (classes.length) node.classList.add(...classes);
  return node;
};
const h = make((name) => document.createElement(name)), s = make((name) => document.createElementNS(SVG, name));
const path = (kind, d) => s("path", { class: kind, d });
const text = (x, y, anchor, label, kind = null) => s("text", { x, y, "text-anchor": anchor, class: kind }, label);

// Data
const head = JSON.parse($("head").textContent);
let bytes;
const half = new Float32Array(65536).map((_, i) => {
  const exponent = (i >> 10) & 31, fraction = i & 1023, sign = i >> 15 ? -1 : 1;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
});
async function unpack() {
  const text = $("data").textContent;
  let packed;
  if (Uint8Array.fromBase64) packed = Uint8Array.fromBase64(text);
  else {
    const plain = atob(text);
    packed = new Uint8Array(plain.length);
    for (let i = 0; i < plain.length; i++) packed[i] = plain.charCodeAt(i);
  }
  $("data").remove();
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  bytes = new Uint8Array(await new Response(stream).arrayBuffer());
}
function numbers(entry, k = 0) {
  const cache = (entry.cache = entry.cache || []);
  if (cache[k]) return cache[k];
  const n = entry.length, size = entry.dtype.endsWith("32") ? 4 : 2, at = entry.offset + k * n * size;
  const f32 = entry.dtype === "f32", values = f32 ? new Uint32Array(n) : size === 4 ? new Float64Array(n) : new Float32Array(n), none = 2 ** (8 * size) - 1;
  for (let i = 0; i < n; i++) {
    let value = bytes[at + i] + 256 * bytes[at + n + i];
    if (size === 4) value += 65536 * bytes[at + 2 * n + i] + 16777216 * bytes[at + 3 * n + i];
    values[i] = entry.dtype === "f16" ? half[value] * entry.factor : value === none && !f32 ? NaN : value;
  }
  return (cache[k] = f32 ? new Float32Array(values.buffer) : values);
}
const columns = new Map(head.columns.map((column) => [column.name, column]));
const has = (name) => columns.has(name);
const fields = new Map(head.episodes.fields.map((field) => [field.name, field]));
const words = head.vocabulary.map((word) => word.replace(/^␣+|␣+$/g, (spaces) => " ".repeat(spaces.length)));
const COUNT = head.episodes.count;
let starts, keptStarts = null;
const value = (name, row) => numbers(columns.get(name))[row];
const size = (e) => starts[e + 1] - starts[e];
const tokenAt = (row) => numbers(head.tokens)[row];
const series = (name, e) => numbers(columns.get(name)).subarray(starts[e], starts[e + 1]);
function several(name, e, t) { // the K numbers of a token, or none where they were left out
  const row = keptStarts ? (keptStarts.has(e) ? keptStarts.get(e) + t : -1) : starts[e] + t;
  const column = columns.get(name);
  return row < 0 || !column ? [] : Array.from({ length: column.width }, (_, k) => numbers(column, k)[row]);
}
function field(name, e) {
  const entry = fields.get(name);
  if (!entry) return undefined;
  const found = numbers(entry)[e];
  return entry.values ? entry.values[found] : found;
}
const placeOf = (row) => { // episode and position of a row
  let e = 0, end = COUNT;
  while (end - e > 1) { const middle = (e + end) >> 1; if (starts[middle] <= row) e = middle; else end = middle; }
  return [e, row - starts[e]];
};
const reason = (row) => (head.reasons ? head.reasons.values[numbers(head.reasons)[row]] : "");
const tokensOf = (e) => Array.from(numbers(head.tokens).subarray(starts[e], starts[e + 1]));
const wordsOf = (e) => tokensOf(e).map((token) => words[token]);
const textOf = (e) => wordsOf(e).join("");
const oneLine = (text) => text.replace(/\s+/g, " ").trim();

// Numbers
function fmt(x, sign = false) {
  if (x === null || x === undefined || Number.isNaN(x)) return "–";
  const size = Math.abs(x);
  if (size === Infinity) return x > 0 ? "∞" : "−∞";
  let text;
  if (size === 0) text = "0";
  else if (Number.isInteger(x) && size < 1e6) text = size.toLocaleString("en");
  else if (size >= 1e-4 && size < 1e-3) text = size.toFixed(4);
  else if (size >= 1e6 || size < 1e-3) text = size.toExponential(1).replace("e+", "e").replace("-", "−");
  else text = size >= 100 ? size.toFixed(0) : size >= 10 ? size.toFixed(1) : size >= 1 ? size.toFixed(2) : size.toFixed(3);
  return (x < 0 ? "−" : sign && x > 0 ? "+" : "") + text;
}
const tidy = (x) => fmt(x).replace(/(\.\d*?)0+(?=e|$)/, "$1").replace(/\.$/, "");
function percent(p) {
  if (!(p >= 0)) return "–";
  return p > 0.9995 ? "100 %" : p >= 0.1 ? (100 * p).toFixed(0) + " %" : p >= 0.0001 ? (100 * p).toFixed(p < 0.001 ? 2 : 1) + " %" : p > 0 ? "< 0.01 %" : "0 %";
}
const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;
const range = (values) => {
  let low = Infinity, high = -Infinity;
  for (const x of values) if (Number.isFinite(x)) { if (x < low) low = x; if (x > high) high = x; }
  return [low, high];
};
const sd = (list) => { const m = mean(list); return Math.sqrt(list.reduce((a, x) => a + (x - m) ** 2, 0) / Math.max(list.length - 1, 1)); };
function correlation(xs, ys) {
  const mx = mean(xs), my = mean(ys);
  let xy = 0, xx = 0, yy = 0;
  for (let i = 0; i < xs.length; i++) { const a = xs[i] - mx, b = ys[i] - my; xy += a * b; xx += a * a; yy += b * b; }
  return xy / Math.sqrt(xx * yy);
}
function ranks(xs) { // mean ranks of ties
  const order = xs.map((_, i) => i).sort((a, b) => xs[a] - xs[b]), out = [];
  for (let i = 0, j; i < order.length; i = j) {
    for (j = i; j < order.length && xs[order[j]] === xs[order[i]]; j++);
    for (let k = i; k < j; k++) out[order[k]] = (i + j - 1) / 2;
  }
  return out;
}
function ticks(low, high, count = 4) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((m) => m * power >= rough) * power, out = [];
  for (let x = Math.ceil(low / step - 1e-9) * step; x <= high + step * 1e-9; x += step) out.push(Math.abs(x) < step * 1e-9 ? 0 : x);
  return out;
}
const isNarrow = () => innerWidth < 896;
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
const scale = (low, high, from, to) => (x) => from + ((x - low) / (high - low || 1)) * (to - from);
const widened = ([low, high]) => (low < high ? [low, high] : [low - 0.5, low + 0.5]);

// State: the part of the address after #
let state = {};
const read = () => {
  const [view, query] = location.hash.slice(1).split("?");
  state = { ...Object.fromEntries(new URLSearchParams(query || "")), view: VIEWS[view] && VIEWS[view].has() ? view : first() };
};
function address(changes) {
  const { view, ...rest } = { ...state, ...changes };
  const kept = Object.entries(rest).filter(([, v]) => v !== undefined && v !== null && v !== "");
  return `#${view}${kept.length ? "?" + new URLSearchParams(kept) : ""}`;
}
const go = (changes) => { location.hash = address(changes); };
const keep = (changes) => { history.replaceState(null, "", address(changes)); read(); };
const set = (changes) => { keep(changes); draw(); };
const open = (e, t) => go({ view: "episode", n: e, t: t === undefined ? null : t });
const link = (changes, ...children) => h("a", { href: address(changes) }, children);
const say = (text) => h("p.muted", text);
const pager = (at, count, move, note) => [h("button", { disabled: at <= 0, onclick: () => move(-1) }, "← Previous"), h("small", note), h("button", { disabled: at === count - 1, onclick: () => move(1) }, "Next →")];
const picker = (label, options, chosen, change) => h("label", label,
  h("select", { onchange: (event) => change(event.target.value) },
    options.map(([key, name]) => h("option", { value: key, selected: key === chosen }, name))));

// Columns as a reader chooses them
const PREFERRED = ["advantage_mc", "advantage_exact", "credit_prefix", "gae_advantage", "log_prob", "entropy", "value", "reward", "kl", "kl_k1"];
const EXTRA = /_(se|n|low|high)$/; // parts of another column
const plain = head.columns.filter((c) => !c.is_wide);
const coloured = [...PREFERRED.filter((n) => has(n) && !columns.get(n).is_wide), ...plain.map((c) => c.name).filter((n) => !PREFERRED.includes(n) && !EXTRA.test(n))];
function interval(name, row) { // a number's 95 % interval, or 2 standard errors, if there are any
  if (has(`${name}_low`)) return [value(`${name}_low`, row), value(`${name}_high`, row)];
  const se = has(`${name}_se`) ? 2 * value(`${name}_se`, row) : NaN;
  return [value(name, row) - se, value(name, row) + se];
}
const label = (name) => (columns.get(name) || { label: name }).label;
const described = (column) => (column.meaning || column.label) + (column.unit ? ` (${column.unit})` : "");
const skewed = (name) => /^(rank|mask_size|advantage_mc_n)/.test(name);
function colouring(name, values) {
  const kind = columns.get(name).scale;
  let [low, high] = range(values);
  if (low > high) return null;
  if (kind === "diverging") { high = Math.max(Math.abs(low), Math.abs(high)) || 1; low = -high; }
  else if (kind === "flag") { low = 0; high = 1; }
  const f = skewed(name) ? Math.log : (x) => x;
  const rare = /^log_prob/.test(name); // the less likely, the darker
  const share = (x) => rare ? (high > low ? (high - x) / (high - low) : 0) : kind === "diverging" ? Math.abs(x) / high : high > low ? (f(x) - f(low)) / (f(high) - f(low)) : 0;
  const paint = (node, x) => {
    if (Number.isNaN(x)) return;
    const part = Math.min(1, Math.max(0, share(x))), hue = kind === "diverging" ? (x < 0 ? "neg" : "pos") : "heat";
    node.style.backgroundColor = `color-mix(in srgb, var(--${hue}) ${(58 * part).toFixed(1)}%, transparent)`;
    if (kind === "diverging" && part > 0.02) node.classList.add(x < 0 ? "minus" : "plus");
  };
  return { low, high, kind, paint };
}
function legend(name, colour, where) {
  if (!colour) return h("div.legend", `${label(name)} is not known for ${where}.`);
  const { low, high, kind, paint } = colour;
  const stops = [0, 1, 2, 3, 4].map((i) => {
    const box = h("i");
    paint(box, skewed(name) ? low * (high / low) ** (i / 4) : low + ((high - low) * i) / 4);
    return box;
  });
  const sign = kind === "diverging";
  return h("div.legend",
    h("span.scale", fmt(low, sign), h("span", { "aria-hidden": "true" }, stops), fmt(high, sign)),
    h("span", sign ? "Solid underline: positive. Dashed: negative. " : "",
      kind === "flag" ? "" : `The colours span the values of ${where}${skewed(name) ? ", on a logarithmic scale" : ""}.`));
}
function chips(names, chosen, choose) {
  const shown = names.slice(0, 9), others = names.slice(9);
  return h("div.chips", { role: "group", "aria-label": "Colour by" },
    shown.map((name, i) => h("button", { title: described(columns.get(name)), "aria-pressed": String(name === chosen), onclick: () => choose(name) },
      h("kbd", { "aria-hidden": "true" }, i + 1), label(name))),
    others.length ? h("select", { "aria-label": "Other columns", onchange: (event) => event.target.value && choose(event.target.value) },
      h("option", { value: "" }, "more …"), others.map((name) => h("option", { value: name, selected: name === chosen }, label(name)))) : null);
}

// Run
const METRIC_NAMES = { "rollout/ep_rew_mean": "mean return", "rollout/score_mean": "mean score", "rollout/ep_len_mean": "mean length", "train/kl_reference": "KL to the reference", "train/entropy_loss": "entropy loss", "train/explained_variance": "explained variance of V", "train/approx_kl": "approximate KL of the update", "train/clip_fraction": "clip fraction" };
const metricName = (name) => METRIC_NAMES[name] || name.replace(/^(rollout|train|time)\//, "").replace(/_/g, " ");
const trace = (ys, x, y) => { // a line with gaps where numbers are missing
  let d = "", pen = "M";
  ys.forEach((v, i) => { if (!Number.isFinite(v)) pen = "M"; else { d += `${pen}${x(i).toFixed(1)} ${y(v).toFixed(1)}`; pen = "L"; } });
  return path("line", d);
};
function axes([x, x0, x1], [y, y0, y1], left, right, bottom) {
  return [...ticks(y0, y1, 5).map((at) => [path("axis", `M${left} ${y(at)}H${right}`), text(left - 8, y(at) + 4, "end", tidy(at))]),
    ...ticks(x0, x1, right < 488 ? 3 : 8).map((at) => [path("axis", `M${x(at)} ${bottom}v4`), text(x(at), bottom + 18, "middle", tidy(at))])];
}
const length = () => Math.max(0, ...Object.values(head.metrics).map((list) => list.length));
function curve(name, xs, width, height, small) {
  const ys = head.metrics[name], left = small ? 4 : 52, bottom = height - (small ? 4 : 24);
  const [x0, x1] = widened(range(xs)), [y0, y1] = widened(range(ys.map((y) => (y === null ? NaN : y))));
  const x = scale(x0, x1, left, width - (small ? 4 : 12)), y = scale(y0, y1, bottom, small ? 4 : 14);
  const parts = small ? [] : axes([x, x0, x1], [y, y0, y1], left, width - 12, bottom);
  if (!small) for (const alarm of head.alarms) if (alarm.update) {
    const at = x(xs[alarm.update - 1]);
    parts.push(path("alarm", `M${at} 14V${bottom}`), s("path", { class: "flag", d: `M${at - 5} 4h10l-5 9z` }, s("title", `${alarm.name}: ${alarm.message}`)));
  }
  parts.push(trace(ys, (i) => x(xs[i]), y));
  return { parts, x, y, xs, ys, bottom };
}
function run(view) {
  const names = Object.keys(head.metrics).filter((name) => head.metrics[name].some((v) => v !== null));
  const ranked = [...Object.keys(METRIC_NAMES).filter((n) => names.includes(n)), ...names.filter((n) => !METRIC_NAMES[n] && !n.startsWith("time/"))];
  const chosen = names.includes(state.metric) ? state.metric : ranked[0];
  const axes = [["update", "updates"], ["time/total_timesteps", "tokens"], ["time/time_elapsed", "seconds"]].filter(([n]) => n === "update" || names.includes(n));
  const axis = axes.some(([n]) => n === state.x) ? state.x : "update";
  const xs = axis === "update" ? Array.from({ length: length() }, (_, i) => i + 1) : head.metrics[axis];
  const width = Math.max(280, view.clientWidth - 34), height = Math.min(340, Math.max(220, width * 0.4));
  const plot = curve(chosen, xs, width, height, false);
  const readout = h("p.muted", { "aria-live": "polite" });
  const cursor = s("path.cursor"), dot = s("circle", { r: 4, class: "dot" });
  let at = Math.min(Number(state.u || xs.length), xs.length) - 1;
  const filterable = fields.has("update");
  const show = (i) => {
    at = clamp(i, 0, xs.length - 1);
    const y = plot.ys[at], known = y !== null && y !== undefined;
    cursor.setAttribute("d", `M${plot.x(xs[at])} 14V${plot.bottom}`);
    dot.setAttribute("cx", plot.x(xs[at])); dot.setAttribute("cy", known ? plot.y(y) : -9);
    readout.replaceChildren(`Update ${at + 1}: ${metricName(chosen)} ${fmt(y)}`, ...head.alarms.filter((a) => a.update === at + 1).map((a) => h("span.warn", ` · alarm ${a.name}`)), filterable ? ". Click or press Enter for its episodes." : ".");
  };
  const nearest = (event) => {
    const px = event.clientX - figure.getBoundingClientRect().left;
    return xs.reduce((best, x, i) => (Math.abs(plot.x(x) - px) < Math.abs(plot.x(xs[best]) - px) ? i : best), 0);
  };
  const pick = () => { if (filterable) go({ view: "episodes", q: `update=${at + 1}`, u: at + 1 }); };
  const figure = s("svg", { width, height, tabindex: 0, role: "img", "aria-label": `${metricName(chosen)} over ${axes.find(([n]) => n === axis)[1]}. Arrow keys choose an update, Enter shows its episodes.`,
    onmousemove: (event) => show(nearest(event)), onclick: (event) => { show(nearest(event)); pick(); },
    onkeydown: (event) => {
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") { show(at + (event.key === "ArrowLeft" ? -1 : 1)); event.preventDefault(); event.stopPropagation(); }
      if (event.key === "Enter") pick();
    } }, plot.parts, cursor, dot);
  show(at);
  put(view, h("h1", `Learning curve: ${metricName(chosen)}`),
    h("div.bar", picker("Metric", [...ranked, ...names.filter((n) => n.startsWith("time/"))].map((n) => [n, metricName(n)]), chosen, (metric) => set({ metric })),
      picker("Against", axes, axis, (x) => set({ x }))),
    h("div.plot", figure), readout,
    h("div.small", ranked.slice(0, 8).map((name) => h("button", { "aria-pressed": String(name === chosen), onclick: () => set({ metric: name }) },
      h("small", metricName(name)), h("div", fmt(head.metrics[name][0]), " → ", h("b", fmt(head.metrics[name].at(-1)))),
      s("svg", { width: "100%", height: 36, viewBox: "0 0 180 36", preserveAspectRatio: "none", class: "still", "aria-hidden": "true" }, curve(name, xs, 180, 36, true).parts)))));
}

// Episodes: filter, order, list
const CONDITION = /(-?)(?:"([^"]*)"|\/((?:[^/\\]|\\.)+)\/|([\w./]+?)(<=|>=|!=|<|>|=|:)(?:"([^"]*)"|(\S+))|(\S+))/g;
const alarmed = new Map();
const VALUES = { __proto__: null, n: (e) => e, tokens: size, text: textOf, alarm: (e) => (alarmed.get(e) || []).join(" ") }; // besides the fields
const valueOf = (name) => VALUES[name] || ((e) => field(name, e));
function matcher(query) { // returns a test of an episode, or throws an Error with a message
  const tests = [];
  for (const [, not, quoted, regex, name, operator, quotedValue, bare, word] of query.trim().matchAll(CONDITION)) {
    let test;
    if (regex) {
      let pattern;
      try { pattern = new RegExp(regex, "i"); } catch (error) { throw new Error(`/${regex}/ is not a regular expression`); }
      test = (e) => pattern.test(field("prompt", e) || "") || pattern.test(textOf(e));
    } else if (operator) {
      const wanted = quotedValue === undefined ? bare : quotedValue;
      if (!VALUES[name] && !fields.has(name)) throw new Error(`No field “${name}”. Fields: ${[...fields.keys(), ...Object.keys(VALUES)].join(", ")}`);
      const of = valueOf(name), x = Number(wanted);
      if (/[<>]/.test(operator) && Number.isNaN(x)) throw new Error(`${name} ${operator} needs a number, got “${wanted}”`);
      const same = (v) => (typeof v === "number" ? Math.abs(v - x) <= 1e-6 * Math.abs(x) : operator === ":" ? v.toLowerCase().includes(wanted.toLowerCase()) : v === wanted);
      test = { "<": (e) => of(e) < x, ">": (e) => of(e) > x, "<=": (e) => of(e) <= x, ">=": (e) => of(e) >= x, "!=": (e) => !same(of(e)) }[operator] || ((e) => same(of(e)));
    } else {
      const part = (quoted === undefined ? word : quoted).toLowerCase();
      test = (e) => (field("prompt", e) || "").toLowerCase().includes(part) || textOf(e).toLowerCase().includes(part);
    }
    tests.push(not ? (e) => !test(e) : test);
  }
  return (e) => tests.every((test) => test(e));
}
let memo = {};
function order() { // numbers of the episodes that the filter leaves, sorted
  const key = `${state.q || ""} ${state.sort || ""}`;
  if (memo.key === key) return memo;
  let list = Array.from({ length: COUNT }, (_, e) => e), error = "";
  try { if (state.q) list = list.filter(matcher(state.q)); } catch (problem) { error = problem.message; }
  const down = (state.sort || "").startsWith("-"), name = (state.sort || "").replace(/^-/, "");
  if (name) {
    const of = valueOf(name), keys = new Map(list.map((e) => [e, of(e)]));
    const less = (a, b) => { const x = keys.get(a), y = keys.get(b); return x < y ? -1 : x > y ? 1 : Number.isNaN(x) - Number.isNaN(y) || a - b; };
    list.sort(down ? (a, b) => less(b, a) : less);
  }
  return (memo = { key, list, error });
}
const folded = new Set();
function episodes(view) {
  const { list, error } = order();
  const narrow = isNarrow(), shown = [["n", "#", "3.2rem"], ["return", "return", "4rem"], ["score", "score", "4rem"], ["update", "update", "4rem"], ["group", "group", "3.6rem"], ["policy", "policy", "4.2rem"],
    ["tokens", "tokens", "4rem"], ["text", "text", "minmax(0, 1fr)"], ["end_reason", "ended by", "9rem"]]
    .filter(([name]) => (VALUES[name] || fields.has(name)) && (!narrow || ["n", "return", "text"].includes(name)));
  const grouped = fields.has("group") && state.groups === "1";
  let rows = list.map((e) => ({ e }));
  if (grouped) {
    const groups = new Map();
    for (const e of list) { const key = `${field("update", e)}|${field("group", e)}`; groups.get(key)?.push(e) || groups.set(key, [e]); }
    rows = [...groups].flatMap(([key, members]) => [{ key, members }, ...(folded.has(key) ? [] : members.map((e) => ({ e })))]);
  }
  const input = h("input", { type: "search", value: state.q || "", placeholder: "Words, /regex/, return<0.2, update=3, policy:after …", "aria-label": "Filter episodes", "aria-describedby": "found",
    oninput: (event) => { keep({ q: event.target.value, n: null, t: null }); clearTimeout(input.wait); input.wait = setTimeout(() => { draw(); const again = document.querySelector("input[type=search]"); again.focus(); again.setSelectionRange(again.value.length, again.value.length); }, 120); } });
  const header = h("div.row.heads", { role: "row", "aria-rowindex": 1 }, shown.map(([name, text]) => {
    const sort = state.sort === name ? "ascending" : state.sort === `-${name}` ? "descending" : "none";
    return h("div", { role: "columnheader", "aria-sort": sort, class: name === "text" || fields.get(name)?.values ? "" : "num" },
      h("button", { title: `Sort by ${text}`, onclick: () => set({ sort: { descending: name, ascending: "", none: `-${name}` }[sort] }) }, text + { ascending: " ↑", descending: " ↓", none: "" }[sort]));
  }));
  const HEIGHT = 36, inner = h("div", { role: "presentation" }), scroller = h("div.scroll", { role: "rowgroup" }, inner);
  let active = Math.max(0, rows.findIndex((row) => String(row.e) === state.n)), printing = false;
  const cell = (name, e) => {
    if (name === "text") {
      const prompt = oneLine(field("prompt", e) || "");
      return h("div", { role: "gridcell", class: "text" }, prompt && !narrow ? h("span.muted", prompt.length > 44 ? `… ${prompt.slice(-42)}` : prompt) : null, oneLine(textOf(e)));
    }
    const found = valueOf(name)(e);
    return h("div", { role: "gridcell", class: typeof found === "number" ? "num" : "" }, typeof found !== "number" ? found : name === "return" || name === "score" ? found.toFixed(3).replace("-", "−") : fmt(found));
  };
  const activate = (i, focus) => {
    active = clamp(i, 0, rows.length - 1);
    const top = active * HEIGHT;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    if (top + HEIGHT > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + HEIGHT - scroller.clientHeight;
    paint();
    if (focus) inner.querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
    if (rows[active]?.e !== undefined) keep({ n: rows[active].e });
  };
  const enter = (i) => {
    const row = rows[i];
    if (!row) return;
    if (row.members) { if (!folded.delete(row.key)) folded.add(row.key); draw(); moveTo(i); } else open(row.e);
  };
  function paint() {
    const count = Math.min(rows.length, printing ? 300 : Infinity);
    inner.style.height = `${count * HEIGHT}px`;
    const from = printing ? 0 : Math.max(0, Math.floor(scroller.scrollTop / HEIGHT) - 4);
    const to = printing ? count : Math.min(count, Math.ceil((scroller.scrollTop + scroller.clientHeight) / HEIGHT) + 4);
    const focused = inner.contains(document.activeElement);
    inner.replaceChildren(...rows.slice(from, to).map((row, k) => {
      const i = from + k, common = { role: "row", "aria-rowindex": i + 2, tabindex: i === active ? 0 : -1, onclick: () => enter(i) };
      let node;
      if (row.members) {
        const returns = row.members.map((e) => field("return", e) ?? field("score", e)).filter((x) => x !== undefined);
        const update = field("update", row.members[0]);
        node = h("div", { ...common, class: "row group", "aria-expanded": String(!folded.has(row.key)) }, h("div", { role: "gridcell" },
          `${folded.has(row.key) ? "▸" : "▾"} ${update ? `Update ${update}, group` : "Group"} ${field("group", row.members[0])}: ${row.members.length} episodes`, returns.length ? `, mean return ${fmt(mean(returns))}` : ""));
      } else node = h("div", { ...common, class: "row" }, shown.map(([name]) => cell(name, row.e)));
      node.style.top = `${i * HEIGHT}px`;
      return node;
    }));
    if (focused) inner.querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
  }
  scroller.addEventListener("scroll", () => requestAnimationFrame(paint));
  const grid = h("div", { class: "grid", role: "grid", "aria-label": "Episodes", "aria-rowcount": rows.length + 1, onkeydown: (event) => {
    if (!inner.contains(event.target)) return;
    const page = Math.max(1, Math.floor(scroller.clientHeight / HEIGHT) - 1);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9 }[event.key];
    if (step) { activate(active + step, true); event.preventDefault(); }
    if (event.key === "Enter") { enter(active); event.preventDefault(); }
  } }, header, scroller);
  grid.style.setProperty("--cells", shown.map(([, , width]) => width).join(" "));
  put(view, h("h1", "Episodes"),
    h("div.bar", input, h("span", { id: "found", class: error ? "warn" : "muted", role: "status" }, error || `${list.length.toLocaleString("en")} of ${COUNT.toLocaleString("en")}`),
      fields.has("group") ? h("button", { "aria-pressed": String(grouped), onclick: () => set({ groups: grouped ? "" : "1" }) }, grouped ? "Without groups" : "In groups") : null), grid);
  const moveTo = (i) => current.move(i - current.at());
  current = { move: (step) => activate(active + step, true), at: () => active, print: (on) => { printing = on; paint(); } };
  paint(); // sets the height that activate scrolls in
  activate(active, false);
}
let current = {};

// Episode
const FAMILIES = [
  ["Choice", /^(log_prob|rank|entropy|mask_size|illegal)/],
  ["Worth", /^(reward|return_to_go|value|td_error|gae|q_|max_q|soft_value|advantage)/],
  ["Credit by other methods", /^credit/],
  ["Change", /^(kl|ratio|clipped|push|tabular|predicted|realized)/],
  ["More", /./],
];
const familyOf = (name) => FAMILIES.findIndex(([, pattern]) => pattern.test(name));
function bars(p, before) {
  const bar = (kind, q, height, y) => s(`rect.${kind}`, { width: (Number.isFinite(q) ? Math.max(1, 104 * q) : 0).toFixed(1), height, y, rx: 1 });
  return s("svg", { width: 104, height: 16, "aria-hidden": "true" }, before >= 0 ? [bar("before", before, 5, 2), bar("after", p, 6, 8)] : bar("after", p, 9, 3.5));
}
const alternative = (name, drawing, number, isChosen = false, title = null) => h("div", { class: isChosen ? "alt chosen" : "alt", title }, h("span", name), drawing, h("span", number));
function card(e, t, chosen) {
  const row = starts[e] + t, out = [], token = tokenAt(row);
  out.push(h("h2", head.vocabulary[token]), h("small", `Token ${t + 1} of ${size(e)}, id ${head.ids[token]}`));
  const rest = plain.filter((c) => !Number.isNaN(value(c.name, row)) && !EXTRA.test(c.name));
  FAMILIES.forEach(([title], number) => {
    const some = rest.filter((c) => familyOf(c.name) === number);
    if (number === 0) {
      const alternatives = several("top_ids", e, t), ps = several("top_log_probs", e, t), olds = several("top_log_probs_before", e, t);
      if (alternatives.some((id) => !Number.isNaN(id))) {
        out.push(h("h3", "Alternatives", olds.length ? " · grey: before" : ""));
        const list = alternatives.map((id, k) => [id, Math.exp(ps[k]), olds.length ? Math.exp(olds[k]) : undefined]).filter(([id]) => !Number.isNaN(id));
        if (has("log_prob") && !list.some(([id]) => id === token)) list.push([token, Math.exp(value(has("log_prob_after") && !Number.isNaN(value("log_prob_after", row)) ? "log_prob_after" : "log_prob", row)), has("log_prob_before") ? Math.exp(value("log_prob_before", row)) : undefined]);
        out.push(...list.map(([id, p, old]) => alternative(head.vocabulary[id], bars(p, old), percent(p), id === token, old === undefined ? null : `before ${percent(old)}, after ${percent(p)}`)));
      } else if (has("top_ids") && keptStarts && !keptStarts.has(e)) out.push(say("Alternatives of this episode were left out to keep the file small."));
    }
    if (!some.length) return;
    out.push(h("h3", title), h("dl", some.map((c) => {
      const x = value(c.name, row), se = has(`${c.name}_se`) ? value(`${c.name}_se`, row) : NaN;
      const shown = c.scale === "flag" ? (x ? "yes" : "no") : fmt(x, c.scale === "diverging") + (Number.isNaN(se) ? "" : ` ± ${fmt(se)}`);
      return [h("dt", { title: described(c), class: c.name === chosen ? "on" : "" }, c.label), h("dd", shown, /^log_prob/.test(c.name) ? h("small", ` p ${percent(Math.exp(x))}`) : null)];
    }).flat()));
  });
  if (reason(row)) out.push(h("h3", "Why the update pushed it"), h("p", reason(row)));
  const past = several("biography", e, t);
  if (past.length) out.push(h("h3", { title: described(columns.get("biography")) }, "Probability under each checkpoint"), past.map((x, k) => alternative((head.about.checkpoints || "").split(", ")[k] || `${k + 1}`, bars(Math.exp(x)), percent(Math.exp(x)))));
  const support = several("occlusion", e, t).map((x, i) => [x, i]).filter(([x]) => Number.isFinite(x)), ahead = support.length - t;
  if (support.length) out.push(h("h3", { title: described(columns.get("occlusion")) }, "What in the context supported it"), h("dl", support.sort((a, b) => Math.abs(b[0]) - Math.abs(a[0])).slice(0, 6).flatMap(([x, i]) => [
    h("dt", i < ahead ? `prompt, token ${i + 1}` : `${head.vocabulary[tokenAt(starts[e] + i - ahead)]} (token ${i - ahead + 1})`), h("dd", fmt(x, true))])));
  const branch = head.branches.find((b) => b.episode === e && b.token === t);
  if (branch) {
    const errors = branch.q_values.map((_, k) => branch.standard_errors[k] ?? 0);
    const x = scale(...widened(range(branch.q_values.flatMap((q, k) => [q - 2 * errors[k], q + 2 * errors[k]]))), 4, 100);
    out.push(h("h3", { title: "Expected return if this token were chosen here, by rollouts, with 2 standard errors" }, "If another token had been chosen"), branch.actions.map((id, k) => {
      const q = branch.q_values[k], se = errors[k], samples = branch.samples[k] || [];
      return h("div.branch", alternative([head.vocabulary[id], " ", h("small", percent(branch.probs[k]))],
        s("svg", { width: 104, height: 16, "aria-hidden": "true" }, path("whisker", `M${x(q - 2 * se)} 8H${x(q + 2 * se)}`), s("circle.dot", { cx: x(q), cy: 8, r: 3.5 })), fmt(q, true), id === token), h("small", `± ${fmt(se)}`),
      samples.length ? h("details", h("summary", samples.length === 1 ? "one continuation" : `${samples.length} continuations`), samples.map((text) => h("p", text))) : null);
    }));
  }
  return out;
}
const TIMELINE = [["reward"], ["value", "value_mc", "value_exact"], ["advantage_exact", "advantage_mc", "gae_advantage"], ["entropy"], ["kl"], ["mask_size"]];
function timeline(e, width, select) {
  const n = size(e), left = 118, x = scale(-0.5, n - 0.5, left, width - 8), H = 52, parts = [], cursor = s("path.cursor");
  let top = 6;
  for (const names of TIMELINE) {
    const name = names.find((c) => has(c) && range(series(c, e))[0] <= range(series(c, e))[1]);
    if (!name) continue;
    const ys = series(name, e), diverging = columns.get(name).scale === "diverging", around = Array.from(ys, (_, t) => interval(name, starts[e] + t));
    let [low, high] = range([...ys, ...around.flat()]);
    if (diverging || low > 0) { low = Math.min(low, 0); high = Math.max(high, 0); }
    [low, high] = widened([low, high]);
    const y = scale(low, high, top + H - 8, top + 8), step = x(1) - x(0);
    parts.push(text(0, top + H / 2, null, label(name), "strong"), text(left - 10, y(high) + 4, "end", fmt(high)), text(left - 10, y(low) + 4, "end", fmt(low)), path("axis", `M${left} ${y(low)}H${width - 8}`));
    if (low < 0 && high > 0) parts.push(path("zero", `M${left} ${y(0)}H${width - 8}`));
    ys.forEach((v, t) => {
      if (!Number.isFinite(v) || (diverging && v === 0)) return;
      if (diverging) parts.push(s("rect", { class: v < 0 ? "minus" : "plus", x: x(t) - step * 0.32, width: Math.max(1, step * 0.64), y: Math.min(y(v), y(0)), height: Math.max(0.75, Math.abs(y(v) - y(0))) }));
      if (Number.isFinite(around[t][0])) parts.push(path("whisker", `M${x(t)} ${y(around[t][0])}V${y(around[t][1])}`));
    });
    if (!diverging) parts.push(trace(ys, x, y));
    top += H + 6;
  }
  if (top === 6) return null;
  const at = (event) => clamp(Math.round(((event.clientX - figure.getBoundingClientRect().left - left) / (width - 8 - left)) * n - 0.5), 0, n - 1);
  const figure = s("svg", { width, height: top + 4, role: "img", "aria-label": "Columns over the positions of the tokens", onmousemove: (event) => select(at(event), false), onclick: (event) => select(at(event), true) }, cursor, parts);
  return { figure, mark: (t) => cursor.setAttribute("d", `M${x(t)} 2V${top}`) };
}
function episode(view) {
  const list = order().list.length ? order().list : [0], e = clamp(Number(state.n ?? list[0]) | 0, 0, COUNT - 1), n = size(e);
  const place = list.indexOf(e), chosen = coloured.includes(state.c) ? state.c : coloured.find((c) => range(series(c, e))[0] <= Infinity && series(c, e).some((x) => !Number.isNaN(x))) || coloured[0];
  const column = columns.get(chosen), colour = column && colouring(chosen, series(chosen, e));
  let selected = clamp(Number(state.t ?? 0) | 0, 0, n - 1);
  const panel = h("aside.card", { "aria-label": "Token", tabindex: 0 });
  let line = null;
  const select = (t, pin, focus) => {
    if (!n) return;
    if (pin) { selected = t; keep({ n: e, t }); nodes.forEach((node, k) => { node.setAttribute("aria-selected", String(k === t)); node.tabIndex = k === t ? 0 : -1; }); if (focus) nodes[t].focus(); }
    panel.replaceChildren(...card(e, t, chosen).flat());
    if (line) line.mark(t);
  };
  const nodes = Array.from({ length: n }, (_, t) => {
    const row = starts[e] + t, isUser = has("log_prob") && Number.isNaN(value("log_prob", row));
    const node = h("span", { class: isUser ? "t user" : "t", role: "option", "aria-selected": "false", tabindex: -1, "data-t": t, onmouseenter: () => select(t, false), onclick: () => select(t, true, true), onfocus: () => t !== selected && select(t, true) }, words[tokenAt(row)]);
    if (colour) colour.paint(node, value(chosen, row));
    return node;
  });
  const box = h("div.tokens", fields.has("prompt") ? h("span.prompt", field("prompt", e)) : null,
    h("span", { role: "listbox", "aria-label": "Tokens", "aria-orientation": "horizontal", onmouseleave: () => select(selected, false), onkeydown: (event) => {
      const t = { ArrowRight: selected + 1, ArrowLeft: selected - 1, Home: 0, End: n - 1 }[event.key];
      if (t !== undefined) { select(clamp(t, 0, n - 1), true, true); event.preventDefault(); event.stopPropagation(); }
    } }, nodes));
  const step = (by) => { const next = list[clamp(place + by, 0, list.length - 1)]; if (next !== undefined && next !== e) set({ n: next, t: null }) };
  const facts = [...fields.keys()].filter((name) => name !== "prompt" && name !== "pair").map((name) => [name, field(name, e)]).filter(([, v]) => v !== "" && !Number.isNaN(v));
  const pair = field("pair", e), raised = alarmed.get(e);
  const left = h("div", h("ul.facts", facts.map(([name, v]) => h("li", name.replace("score/", "score of ").replace(/_/g, " "), " ", h("b", typeof v === "number" ? fmt(v) : v))),
    raised ? h("li.warn", `alarm: ${raised.join(", ")}`) : null, VIEWS.compare.has() && pair >= 0 ? h("li", link({ view: "compare", pair: e }, "compare before and after")) : null),
    column ? [chips(coloured, chosen, (c) => set({ c })), say(`${column.label}: ${described(column)}`), legend(chosen, colour, "this episode")] : null, box);
  put(view, h("div.bar", h("h1", `Episode ${e}`), h("span.end.bar", pager(place, list.length, step, place < 0 ? "" : `${place + 1} of ${list.length}${state.q ? " found" : ""}`))),
  h("div.episode", left, panel));
  line = timeline(e, Math.max(280, left.clientWidth), (t, pin) => select(t, pin));
  if (line) left.append(h("div.timeline", line.figure), say(`Whiskers: ${head.columns.some((c) => c.name.endsWith("_low")) ? "95 % intervals" : "2 standard errors"}.`));
  if (line && ![...line.figure.querySelectorAll(".whisker")].length) left.lastChild.remove();
  current = { move: step, column: (i) => coloured[i] && set({ c: coloured[i] }), token: (by) => select(clamp(selected + by, 0, n - 1), true, true) };
  select(selected, true);
}

// Before and after
const pairs = () => {
  if (!fields.has("pair") || !fields.has("policy")) return [];
  const out = [];
  for (let e = 0; e < COUNT; e++) { const other = field("pair", e); if (field("policy", e) === "before" && other >= 0 && other < COUNT) out.push([e, other]); }
  return out;
};
function align(a, b) { // longest common subsequence, as pairs of positions of which one may be missing
  const rows = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--) rows[i][j] = a[i] === b[j] ? rows[i + 1][j + 1] + 1 : Math.max(rows[i + 1][j], rows[i][j + 1]);
  const out = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) out.push([i++, j++, true]);
    else { // between two common tokens, different ones stand below each other
      const lefts = [], rights = [];
      while ((i < a.length || j < b.length) && !(i < a.length && j < b.length && a[i] === b[j])) {
        if (j >= b.length || (i < a.length && rows[i + 1][j] >= rows[i][j + 1])) lefts.push(i++); else rights.push(j++);
      }
      for (let k = 0; k < Math.max(lefts.length, rights.length); k++) out.push([lefts[k], rights[k], false]);
    }
  }
  return out;
}
function compare(view) {
  const all = pairs(), numbersOf = all.map(([a, b]) => [field("return", a), field("return", b)]).filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));
  const wins = numbersOf.filter(([x, y]) => y > x).length, ties = numbersOf.filter(([x, y]) => y === x).length, n = numbersOf.length;
  const p = (wins + ties / 2) / n, z = 1.96, middle = (p + (z * z) / (2 * n)) / (1 + (z * z) / n), margin = (z / (1 + (z * z) / n)) * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
  const gains = numbersOf.map(([x, y]) => y - x);
  const at = Math.max(0, all.findIndex(([a, b]) => String(a) === state.pair || String(b) === state.pair)), [a, b] = all[at];
  const names = coloured.filter((c) => !/^(value_mc|value_exact)/.test(c)), chosen = names.includes(state.c) ? state.c : names.includes("kl_k1") ? "kl_k1" : names[0];
  const colour = chosen && colouring(chosen, [...series(chosen, a), ...series(chosen, b)]);
  const cell = (e, t, same) => {
    if (t === undefined) return h("span.gap");
    const row = starts[e] + t, node = h("a", { class: same ? "t same" : "t", href: address({ view: "episode", n: e, t }), title: chosen ? `${label(chosen)} ${fmt(value(chosen, row))}` : "" }, words[tokenAt(row)]);
    node.style.textDecoration = "none"; if (!same) node.style.color = "var(--ink)";
    if (colour) colour.paint(node, value(chosen, row));
    return node;
  };
  const move = (by) => set({ pair: all[clamp(at + by, 0, all.length - 1)][0] });
  current = { move, column: (i) => names[i] && set({ c: names[i] }) };
  put(view, h("h1", "Before and after"), n ? h("p", "Same prompts, same random numbers. Mean return ", h("b", `${fmt(mean(numbersOf.map(([x]) => x)))} → ${fmt(mean(numbersOf.map(([, y]) => y)))}`),
    n > 1 ? `, gain ${fmt(mean(gains), true)} ± ${fmt(sd(gains) / Math.sqrt(n))} (standard error). ` : ". ", "After is better in ", h("b", `${wins} of ${n}`), ` pairs${ties ? `, ${ties} ${ties === 1 ? "is a tie" : "are ties"}` : ""}: win rate `, h("b", percent(p)), ` (95 % interval ${percent(middle - margin)} to ${percent(middle + margin)}${ties ? ", ties count half" : ""}).`) : null,
  h("div.bar", pager(at, all.length, move, `Pair ${at + 1} of ${all.length}`)),
  chosen ? [chips(names, chosen, (c) => set({ c })), legend(chosen, colour, "this pair")] : [],
  h("p.prompt", field("prompt", a) || ""),
  h("div.pair", h("div.both.names", h("span", `before ${fmt(field("return", a))}`), h("span", `after ${fmt(field("return", b))}`)),
    align(tokensOf(a), tokensOf(b)).map(([i, j, same]) => h("div.both", cell(a, i, same), cell(b, j, same)))),
  say("Grey tokens are in both texts. A click opens a token."));
}

// Scatter plots
function scatter(view, xName, yName, xLabel, yLabel) {
  const xs = numbers(columns.get(xName)), ys = numbers(columns.get(yName)), found = [];
  for (let r = 0; r < xs.length; r++) if (Number.isFinite(xs[r]) && Number.isFinite(ys[r])) found.push(r);
  if (found.length < 3) return say("Fewer than three tokens have both numbers.");
  const X = found.map((r) => xs[r]), Y = found.map((r) => ys[r]), m = mean(X), total = X.reduce((a, x) => a + (x - m) ** 2, 0);
  const errors = X.map((x, i) => x - Y[i]), off = mean(errors), explained = 1 - errors.reduce((a, d) => a + (d - off) ** 2, 0) / total;
  const every = Math.ceil(found.length / 4000), drawn = found.filter((_, i) => i % every === 0);
  const width = Math.max(280, view.clientWidth - 34), height = Math.min(460, width * 0.75), left = 56, bottom = height - 40;
  const [x0, x1] = widened(range(X)), [y0, y1] = widened(range(Y)), x = scale(x0, x1, left + 6, width - 14), y = scale(y0, y1, bottom - 6, 12), parts = axes([x, x0, x1], [y, y0, y1], left, width - 14, bottom);
  const low = Math.max(x0, y0), high = Math.min(x1, y1);
  if (low < high) parts.push(path("zero", `M${x(low)} ${y(low)}L${x(high)} ${y(high)}`));
  const dots = drawn.map((r) => s("circle", { cx: x(xs[r]).toFixed(1), cy: y(ys[r]).toFixed(1), r: 3, "data-r": r }, s("title", `${head.vocabulary[tokenAt(r)]}: ${fmt(xs[r], true)}, ${fmt(ys[r], true)}`)));
  const figure = s("svg", { width, height, role: "img", "aria-label": `${yLabel} against ${xLabel}`, onclick: (event) => { const dot = event.target.closest("circle"); if (dot) open(...placeOf(Number(dot.dataset.r))); } },
    parts, dots, text((left + width) / 2, height - 4, "middle", xLabel, "strong"), s("text", { class: "strong", transform: `translate(12 ${bottom / 2}) rotate(-90)`, "text-anchor": "middle" }, yLabel));
  const worst = found.map((r) => [Math.abs(xs[r] - ys[r]), r]).sort((p, q) => q[0] - p[0]).slice(0, 10);
  return h("div", h("p", "Rank correlation ", h("b", fmt(correlation(ranks(X), ranks(Y)))), ", correlation ", h("b", fmt(correlation(X, Y))), ", explained variance ", h("b", fmt(explained)), ` over ${found.length.toLocaleString("en")} tokens.`,
    every > 1 ? ` The plot shows one token in ${every}.` : ""), h("div.plot", figure), say("Dashed: both numbers are equal. A click on a token opens it."),
  h("h2", "Largest differences"), tokenTable(worst.map(([, r]) => r), [[xLabel, xName], [yLabel, yName]]));
}
function tokenTable(rows, shown) {
  const why = head.reasons && shown[0][1].startsWith("push");
  return h("table", h("thead", h("tr", h("th", "Token in its text"), shown.map(([label]) => h("th.num", label)), why ? h("th.wide", "Why") : null)), h("tbody", rows.map((r) => {
    const [e, t] = placeOf(r), part = (from, to) => wordsOf(e).slice(from, to).join("");
    return h("tr", h("td.text", t > 6 ? "… " : "", part(Math.max(0, t - 6), t), link({ view: "episode", n: e, t }, h("mark", words[tokenAt(r)])), part(t + 1, t + 4)),
      shown.map(([, name]) => h("td.num", fmt(value(name, r), columns.get(name).scale === "diverging"))), why ? h("td.wide", h("small", reason(r))) : null);
  })));
}
const TRUTHS = ["advantage_exact", "advantage_mc", "value_exact", "value_mc", "q_exact"];
const believed = (truth) => truth.startsWith("adv") ? ["gae_advantage", "td_error", ...plain.map((c) => c.name).filter((n) => n.startsWith("credit_")), ...(truth === "advantage_exact" ? ["advantage_mc"] : [])] : truth === "q_exact" ? ["q_value"] : ["value", "soft_value", "max_q", ...(truth === "value_exact" ? ["value_mc"] : [])];
const contests = () => TRUTHS.filter(has).flatMap((truth) => believed(truth).filter(has).map((belief) => [`${belief}~${truth}`, `${label(belief)} against ${label(truth)}`]));
function belief(view) {
  const all = contests(), chosen = all.some(([key]) => key === state.b) ? state.b : all[0][0], [y, x] = chosen.split("~");
  put(view, h("h1", "Belief against truth"), h("p", `${label(x)}: ${described(columns.get(x))}. ${label(y)}: ${described(columns.get(y))}. ${returns()}`),
    h("div.bar", picker("Compare", all, chosen, (b) => set({ b }))), scatter(view, x, y, label(x), label(y)));
}
const returns = () => (head.about.return ? `V, advantages and GAE concern one return: ${head.about.return}.` : "");

// Update
const terms = () => plain.map((c) => c.name).filter((n) => /^(push|tabular|predicted|realized)/.test(n));
function update(view) {
  const names = terms(), chosen = names.includes(state.p) ? state.p : names[0], values = numbers(columns.get(chosen)), known = [];
  for (let r = 0; r < values.length; r++) if (Number.isFinite(values[r]) && values[r] !== 0) known.push(r);
  known.sort((a, b) => values[b] - values[a]);
  const shown = [chosen, ...names.filter((n) => n !== chosen)].slice(0, isNarrow() ? 1 : 4).map((n) => [label(n), n]);
  put(view, h("h1", "What the update did"), say(`${label(chosen)}: ${described(columns.get(chosen))}.`), h("div.bar", picker("Rank by", names.map((n) => [n, label(n)]), chosen, (p) => set({ p }))),
    h("div", h("h2", "Pushed up most"), tokenTable(known.slice(0, 10).filter((r) => values[r] > 0), shown), h("h2", "Pushed down most"), tokenTable(known.slice(-10).reverse().filter((r) => values[r] < 0), shown)));
  if (has("predicted_change") && has("realized_change")) put(view, h("h2", "Predicted and realised change"), scatter(view, "predicted_change", "realized_change", label("predicted_change"), label("realized_change")));
}

// Alarms, About
function alarms(view) {
  put(view, h("h1", "Alarms"), say("Statistics of the run that left their bounds."), head.alarms.map((alarm) => h("section.alarmed", h("h2", alarm.name, alarm.update ? h("small", ` update ${alarm.update}`) : null), h("p", alarm.message), h("p", h("b", "What to try: "), alarm.advice),
    alarm.episodes.length ? h("p", "Episodes: ", alarm.episodes.map((e, i) => [i ? ", " : "", link({ view: "episode", n: e, t: null }, e)])) : null,
    alarm.texts.length ? h("details", h("summary", "Texts"), alarm.texts.map((text) => h("p.text", text))) : null)));
}
function about(view) {
  put(view, h("h1", "About this report"), h("p", `${COUNT.toLocaleString("en")} episodes, ${numbers(head.tokens).length.toLocaleString("en")} tokens. ${returns()}`), ...head.notes.map((note) => h("p", note)),
    h("div.about", Object.keys(head.about).length ? [h("h2", "Settings"), h("dl", Object.entries(head.about).flatMap(([key, v]) => [h("dt", key), h("dd", typeof v === "number" ? fmt(v) : String(v))]))] : [],
      head.columns.length ? [h("h2", "Columns"), h("dl", head.columns.flatMap((c) => [h("dt", c.label), h("dd", described(c), ".")]))] : [], h("h2", "Privacy"), h("p", "This file holds everything that it shows and requests nothing.")));
}

const VIEWS = {
  run: { title: "Run", has: () => length() > 1, draw: run },
  episodes: { title: "Episodes", has: () => COUNT > 0, draw: episodes },
  episode: { title: "Episode", has: () => COUNT > 0, draw: episode },
  compare: { title: "Before/after", has: () => pairs().length > 0, draw: compare },
  belief: { title: "Belief", has: () => contests().length > 0, draw: belief },
  update: { title: "Update", has: () => terms().length > 0, draw: update },
  alarms: { title: "Alarms", has: () => head.alarms.length > 0, draw: alarms },
  about: { title: "About", has: () => true, draw: about },
};
const first = () => Object.keys(VIEWS).find((name) => VIEWS[name].has());
const KEYS = [["j, k", "next, previous episode"], ["← →", "previous, next token"], ["1 – 9", "colour by a column"], ["Enter", "open"], ["/", "filter the episodes"], ["Esc", "back to the episodes"], ["?", "this help"]];
function draw() {
  const view = $("view");
  current = {};
  applyTheme();
  $("tabs").replaceChildren(...Object.entries(VIEWS).filter(([, v]) => v.has()).map(([name, v]) => h("a", { href: address({ view: name }), "aria-current": name === state.view ? "page" : null }, v.title, name === "alarms" ? ` (${head.alarms.length})` : "")));
  view.replaceChildren();
  VIEWS[state.view].draw(view);
  document.title = `${VIEWS[state.view].title}${state.view === "episode" ? ` ${state.n ?? ""}` : ""} · textgym report`;
}
function applyTheme() {
  const theme = ["light", "dark"].includes(state.theme) ? state.theme : "";
  if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme;
  $("theme").textContent = `Theme: ${theme || "auto"}`;
}
const help = () => {
  $("keys").replaceChildren(h("h1", { id: "keys-title" }, "Keyboard"), h("dl", KEYS.flatMap(([key, does]) => [h("dt", h("kbd", key)), h("dd", does)])),
    h("p", "Filter: words, “quoted words”, /regex/, conditions such as return<0.2, tokens>=10, policy:after, alarm:kl; a minus in front negates."), h("form", { method: "dialog" }, h("button", "Close")));
  $("keys").showModal();
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  if (event.target.matches("input, select, textarea")) { if (event.key === "Escape") event.target.blur(); return; }
  const act = {
    j: () => current.move && current.move(1), k: () => current.move && current.move(-1),
    ArrowRight: () => current.token && current.token(1), ArrowLeft: () => current.token && current.token(-1),
    "/": () => { if (!COUNT) return; if (state.view !== "episodes") set({ view: "episodes" }); document.querySelector("input[type=search]").focus(); },
    "?": help, Escape: () => state.view === "episode" && go({ view: "episodes" }),
  }[event.key] || (/^[1-9]$/.test(event.key) && current.column ? () => current.column(Number(event.key) - 1) : null);
  if (act) { act(); event.preventDefault(); }
});
$("theme").addEventListener("click", () => { keep({ theme: { "": "dark", dark: "light", light: "" }[state.theme || ""] }); draw(); });
$("help").addEventListener("click", help);
addEventListener("hashchange", () => { read(); draw(); scrollTo(0, 0); });
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
addEventListener("beforeprint", () => current.print && current.print(true));
addEventListener("afterprint", () => current.print && current.print(false));

async function start() {
  if (head.schema !== "textgym.report/1") throw new Error(`This page reads textgym.report/1, the data are ${head.schema}: save the report again.`);
  if (typeof DecompressionStream === "undefined") throw new Error("This browser is too old for this report: it needs DecompressionStream, which all have had since 2023.");
  await unpack();
  const sizes = numbers(head.episodes.sizes);
  starts = new Uint32Array(COUNT + 1);
  for (let e = 0; e < COUNT; e++) starts[e + 1] = starts[e] + sizes[e];
  if (head.kept) { keptStarts = new Map(); let at = 0; for (const e of head.kept) { keptStarts.set(e, at); at += size(e); } }
  for (const alarm of head.alarms) for (const e of alarm.episodes) alarmed.set(e, [...(alarmed.get(e) || []), alarm.name]);
  $("subtitle").textContent = head.about.title || "report";
  read();
  draw();
  document.documentElement.dataset.ready = "true";
}
start().catch((error) => { $("view").replaceChildren(h("h1", "The report cannot be shown"), h("p.warn", error.message)); throw error; });
