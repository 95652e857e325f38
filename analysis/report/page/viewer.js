// The viewer of kept tokens: a list of questions, one of them with the frames under several methods, a slider over r.
// Its state is in the page's address, so that what is seen can be linked to.

async function unzip(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function startViewer({ parts, sheets }) {
  const find = (id) => document.getElementById(id);
  const pictures = new Map(); // sheet number -> promise of an image
  const state = { part: 0, doc: null, ratio: 0, methods: new Set() };
  let part = parts[0];
  let listed = [];

  const share = (ratio) => `r = ${Number((part.ratios[ratio] ?? 1).toPrecision(3))}`;
  const whole = () => part.methods.findIndex((method) => method.whole);
  const answerOf = (question, method) =>
    question.answers.find((a) => a.method === method && (a.ratio === null || a.ratio === state.ratio));
  const isRight = (answer) => answer !== undefined && answer.score !== null && answer.score >= 0.5;
  const isWrong = (answer) => answer !== undefined && answer.score !== null && answer.score < 0.5;

  function picture(number) {
    if (number === null || !sheets[number].there) return Promise.resolve(null);
    if (!pictures.has(number)) {
      const image = new Image();
      image.src = `data:image/webp;base64,${find(`sheet-${number}`).textContent}`;
      pictures.set(number, image.decode().then(() => image));
    }
    return pictures.get(number);
  }

  function verdict(answer) {
    if (answer.score === null) return element("span", { class: "wrong" }, `– ${answer.failure ?? "not scored"}`);
    return isRight(answer)
      ? element("span", { class: "right" }, "✓ right")
      : element("span", { class: "wrong" }, "✗ wrong");
  }

  function told(question, kept, merged) {
    const total = kept.length;
    const count = (flags) => flags.reduce((sum, flag) => sum + flag, 0);
    const number = count(kept);
    let text = `kept ${number} of ${total} (${((100 * number) / total).toFixed(1)}%)`;
    if (merged) text += `, merged ${count(merged)}`;
    if (question.evidence?.length) {
      text += `; evidence ${count(question.evidence.map((at) => kept[at]))} of ${question.evidence.length}`;
    }
    return text;
  }

  async function card(question, number) {
    const method = part.methods[number];
    const answer = answerOf(question, number);
    const dot = element("span", { class: "dot", style: `background:${method.colour}` });
    const made = element("section", { class: "card", "aria-label": method.name }, element("h4", {}, dot, method.name));
    made.dataset.method = method.name;
    if (answer === undefined) {
      made.append(element("p", { class: "soft" }, `not run at ${share(state.ratio)}`));
      return made;
    }
    made.append(element("p", {}, verdict(answer), answer.text ? ` “${answer.text.trim()}”` : ""));
    if (answer.kept === null) {
      made.append(element("p", { class: "soft" }, "its record does not say what was kept"));
      return made;
    }
    const size = question.grid.reduce((product, side) => product * side, 1);
    const [kept, merged] = [unpack(answer.kept, size), unpack(answer.merged, size)];
    const text = told(question, kept, merged);
    const canvas = element("canvas", { role: "img", "aria-label": `${question.frames} frames under ${method.name}: ${text}` });
    made.append(element("p", { class: "soft" }, text), canvas);
    const sheet = question.sheet === null ? null : sheets[question.sheet];
    drawFrames(canvas, question, sheet, await picture(question.sheet), kept, merged);
    return made;
  }

  let drawn = 0; // the latest drawing wins where two overlap

  async function showQuestion() {
    const turn = ++drawn;
    await new Promise(requestAnimationFrame);
    if (turn !== drawn) return;
    const question = part.questions.find((q) => q.doc === state.doc);
    const head = [];
    if (question !== undefined) {
      const number = `Question ${question.doc}`;
      head.push(element("h3", {}, question.kind ? `${number}, ${question.kind}` : number));
      head.push(element("p", { class: "asked" }, question.question ?? "its text is not in the records"));
      head.push(element("p", {}, "Right answer: ", element("b", {}, question.target ?? "not told")));
      const note = question.sheet === null ? "" : sheets[question.sheet].note;
      if (note) head.push(element("p", { class: "soft" }, note));
    }
    const shown = part.methods.map((_, n) => n).filter((n) => state.methods.has(n));
    const cards = question === undefined ? [] : await Promise.all(shown.map((n) => card(question, n)));
    if (turn !== drawn) return;
    find("question").replaceChildren(...head, element("div", { class: "cards" }, ...cards));
    find("ratio-value").textContent = share(state.ratio);
    find("ratio").setAttribute("aria-valuetext", share(state.ratio));
    if (turn > 1) remember(); // the first is what the address says, or says nothing
  }

  function remember() {
    const known = { part: state.part, question: state.doc, r: part.ratios[state.ratio], methods: [...state.methods].join(".") };
    history.replaceState(null, "", `#viewer?${new URLSearchParams(known)}`);
  }

  function label(question) {
    const answer = answerOf(question, whole());
    const flips = `${question.flips} ${question.flips === 1 ? "flip" : "flips"}`;
    const before = answer === undefined ? "" : isRight(answer) ? ", ✓ with all tokens" : ", ✗ with all tokens";
    const text = (question.question ?? `question ${question.doc}`).split("\n")[0];
    return [text, element("small", {}, `${question.doc} ${question.kind}`.trim() + `: ${flips}${before}`)];
  }

  function listQuestions() {
    const words = find("question-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [right, wrong, kind] = [find("right").value, find("wrong").value, find("kind").value];
    listed = part.questions.filter((question) => {
      const text = `${question.doc} ${question.kind} ${question.question ?? ""}`.toLowerCase();
      return (
        words.every((word) => text.includes(word)) &&
        (kind === "" || question.kind === kind) &&
        (right === "" || isRight(answerOf(question, Number(right)))) &&
        (wrong === "" || isWrong(answerOf(question, Number(wrong))))
      );
    });
    if (find("order").value === "flips") listed.sort((a, b) => b.flips - a.flips || a.doc - b.doc);
    const options = listed.map((question) => {
      const made = element("div", { role: "option", id: `option-${question.doc}` }, ...label(question));
      made.addEventListener("click", () => choose(question.doc));
      return made;
    });
    find("questions").replaceChildren(...options);
    const where = right !== "" || wrong !== "" ? ` at ${share(state.ratio)}` : "";
    find("question-count").textContent = `${listed.length} of ${part.questions.length} questions${where}`;
    choose(listed.some((q) => q.doc === state.doc) ? state.doc : (listed[0]?.doc ?? null));
  }

  function choose(doc) {
    state.doc = doc;
    const list = find("questions");
    for (const option of list.children) option.setAttribute("aria-selected", String(option.id === `option-${doc}`));
    const chosen = find(`option-${doc}`);
    if (chosen) {
      list.setAttribute("aria-activedescendant", chosen.id);
      // Not scrollIntoView: it would move the page, too.
      const [above, below] = [chosen.offsetTop - list.offsetTop, chosen.offsetTop - list.offsetTop + chosen.offsetHeight];
      if (above < list.scrollTop) list.scrollTop = above;
      else if (below > list.scrollTop + list.clientHeight) list.scrollTop = below - list.clientHeight;
    } else {
      list.removeAttribute("aria-activedescendant");
    }
    return showQuestion();
  }

  function onListKey(event) {
    const place = listed.findIndex((question) => question.doc === state.doc);
    const moves = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: listed.length - 1, PageDown: place + 10, PageUp: place - 10 };
    if (!(event.key in moves) || listed.length === 0) return;
    event.preventDefault();
    choose(listed[Math.min(listed.length - 1, Math.max(0, moves[event.key]))].doc);
  }

  function fill(select, first, values) {
    select.replaceChildren(new Option(first, ""), ...values.map(([text, value]) => new Option(text, value)));
  }

  // All tokens and the first rows of three other methods: enough to compare, and they fit beside each other.
  function usualMethods() {
    const seen = new Set();
    for (const [number, { method }] of part.methods.entries()) {
      if (seen.size < 4 && ![...seen].some((n) => part.methods[n].method === method)) seen.add(number);
    }
    return seen;
  }

  function choosePart(number) {
    state.part = number;
    part = parts[number];
    state.methods = usualMethods();
    state.ratio = 0;
    find("ratio").max = Math.max(0, part.ratios.length - 1);
    find("ratio").disabled = part.ratios.length < 2;
    find("ratio").value = 0;
    const kinds = [...new Set(part.questions.map((question) => question.kind))].filter(Boolean).sort();
    fill(find("kind"), "all", kinds.map((kind) => [kind, kind]));
    const methods = part.methods.map((method, n) => [method.name, n]);
    fill(find("right"), "any", methods);
    fill(find("wrong"), "any", methods);
    const boxes = part.methods.map((method, n) => {
      const box = element("input", { type: "checkbox", value: n });
      box.checked = state.methods.has(n);
      const dot = element("span", { class: "dot", style: `background:${method.colour}` });
      return element("label", {}, box, " ", dot, method.name);
    });
    find("method-boxes").replaceChildren(...boxes);
    document.querySelector("[data-evidence]").hidden = !part.questions.some((question) => question.evidence);
  }

  function recall() {
    const known = new URLSearchParams(location.hash.split("?")[1] ?? "");
    choosePart(Number(known.get("part")) in parts ? Number(known.get("part")) : 0);
    const ratio = part.ratios.indexOf(Number(known.get("r")));
    if (ratio >= 0) find("ratio").value = state.ratio = ratio;
    if (known.has("question")) state.doc = Number(known.get("question"));
    if (known.get("methods")) setMethods(known.get("methods").split(".").map(Number));
  }

  function setMethods(numbers) {
    state.methods = new Set(numbers);
    for (const box of find("method-boxes").querySelectorAll("input")) box.checked = state.methods.has(Number(box.value));
  }

  find("part").addEventListener("change", (event) => {
    choosePart(Number(event.target.value));
    listQuestions();
  });
  find("ratio").addEventListener("input", (event) => {
    state.ratio = Number(event.target.value);
    if (find("right").value !== "" || find("wrong").value !== "") listQuestions();
    else showQuestion();
  });
  for (const id of ["right", "wrong"]) {
    find(id).addEventListener("change", (event) => {
      if (event.target.value !== "") setMethods([...state.methods, Number(event.target.value)]);
    });
  }
  for (const id of ["kind", "order", "right", "wrong"]) find(id).addEventListener("change", listQuestions);
  find("question-filter").addEventListener("input", listQuestions);
  for (const [id, numbers] of [["all-methods", () => part.methods.keys()], ["few-methods", usualMethods]]) {
    find(id).addEventListener("click", () => {
      setMethods(numbers());
      showQuestion();
    });
  }
  find("method-boxes").addEventListener("change", (event) => {
    if (event.target.checked) state.methods.add(Number(event.target.value));
    else state.methods.delete(Number(event.target.value));
    showQuestion();
  });
  find("size").addEventListener("change", (event) => find("question").style.setProperty("--card", event.target.value));
  find("questions").addEventListener("keydown", onListKey);
  recall();
  find("part").value = state.part;
  listQuestions();
  if (location.hash.startsWith("#viewer?")) find("viewer").scrollIntoView();
}

if (document.getElementById("questions")) {
  unzip(document.getElementById("data").textContent).then(startViewer);
}
