// Pictures, queries and answers.
const LONGEST = 1600, EXAMPLE = "example.png", PHASES = {preprocess: "#8492a8", vision_encode: "#56cc9d", prefill: "#ffce54",
  decode: "#ff6384", mask_encode: "#5c8eff", mask_decode: "#b284ff"};
const FILES = {json: ["JSON", "json"], mask: ["mask", "png"], cutout: ["cut-out", "png"], outlines: ["outlines", "svg"],
  overlay: ["overlay", "png"], coco: ["COCO", "json"]};
const NEEDS_HTTPS = "The camera is not available: the page needs https or localhost to use it.";
const CAMERA = {video: {facingMode: "environment", width: {ideal: 1280}}};
const $ = (id) => document.getElementById(id);
const frames = new WeakMap();  // pictures to the names under which the service stores them
let image = null, asking = null, takes = 0, shooting = false, stem = "picture", shown = [];

function say(words, problem = false) {
  $("say").textContent = words;
  $("say").classList.toggle("problem", problem);
}

function headers(more = {}) {
  const token = sessionStorage.getItem("token");
  return token ? {...more, authorization: `Bearer ${token}`} : more;
}

async function send(path, options) {
  for (;;) {
    const answer = await fetch(path, {...options, headers: headers(options.headers)});
    if (answer.status === 401) {
      const token = prompt("Enter the token of this service:");
      if (!token) throw new Error("the service requires a token");
      sessionStorage.setItem("token", token.trim());
      continue;
    }
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(told.error || `the service answered ${answer.status}`), {status: answer.status});
  }
}

// Returns a canvas with a picture, scaled down to a size that is quick to send; the browser has turned it upright.
function scaled(source, width, height, longest) {
  const made = document.createElement("canvas"), scale = Math.min(1, longest / Math.max(width, height));
  made.width = Math.max(1, Math.round(width * scale));
  made.height = Math.max(1, Math.round(height * scale));
  const draw = made.getContext("2d", {willReadFrequently: true});
  draw.fillStyle = "#fff";  // behind transparent pixels, as the service does; JPEG would make them black
  draw.fillRect(0, 0, made.width, made.height);
  draw.drawImage(source, 0, 0, made.width, made.height);
  return made;
}

async function take(blob, name) {
  const turn = ++takes;
  let taken, bitmap;
  try {
    bitmap = await createImageBitmap(blob);
    taken = scaled(bitmap, bitmap.width, bitmap.height, LONGEST);
  } catch {
    if (turn === takes) say(`${name} is not an image that this browser can read.`, true);
    return;
  }
  if (turn !== takes) return;  // a later image was faster
  if (asking) asking.abort();  // the previous image is no longer shown
  end(asking);
  endLive();
  image = taken;
  const whole = bitmap.width > taken.width ? ` (of ${bitmap.width} × ${bitmap.height})` : "";
  entitle(name, `${image.width} × ${image.height}${whole}`);
  $("examples").hidden = name !== EXAMPLE;
  $("results").replaceChildren();
  const {canvas} = card("image", "");
  paint(image, canvas);
  canvas.setAttribute("aria-label", name);
  say("Enter what to find.");
  $("query").focus();
}

function entitle(name, size) {
  stem = name.replace(/\.\w+$/, "").replace(/\s+/g, "-");
  $("name").textContent = `${name}, ${size}`;
}

async function keep(picture, signal) {
  const small = picture.width * picture.height < 1e6;
  const blob = await new Promise((done) => picture.toBlob(done, small ? "image/png" : "image/jpeg", 0.93));
  const body = new FormData();
  body.append("image", blob, "image");
  frames.set(picture, (await (await send("v1/frames", {method: "POST", body, signal})).json()).frame);
}

// Asks on a picture, which is stored if it is not yet, or no longer, since other clients' pictures replaced it.
async function askOn(picture, question, signal, accept = "*/*") {
  const head = {"content-type": "application/json", accept}, body = JSON.stringify(question);
  const ask = () => send(`v1/frames/${frames.get(picture)}/segment`, {method: "POST", body, headers: head, signal});
  if (!frames.has(picture)) await keep(picture, signal);
  try {
    return await ask();
  } catch (error) {
    if (error.status !== 404) throw error;
    await keep(picture, signal);
    return await ask();
  }
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function card(title, note) {
  const canvas = element("canvas"), heading = element("h2", {}, title, element("small", {textContent: note}));
  const rationale = element("p", {className: "rationale"}), figures = element("div"), notes = element("div");
  const files = element("p", {className: "chips"});
  canvas.setAttribute("role", "img");
  rationale.setAttribute("aria-live", "polite");
  const words = note === "" ? [] : [element("div", {className: "words"}, heading, rationale, notes, figures, files)];
  $("results").append(element("article", {}, canvas, ...words));
  return {canvas, rationale, notes, figures, files, heading, small: heading.querySelector("small")};
}

// Shows an answer on its picture, with its notes and files.
function show(made, picture, query, variant, result) {
  made.answer = {picture, query, variant, result};
  paint(picture, made.canvas, result, $("marks").checked);
  const [left, top, right, bottom] = result.box || [];
  const first = result.objects.length > 1 ? `${result.objects.length} objects, the first in` : "mask,";
  const found = result.mask_px ? `${first} box ${left}, ${top} to ${right}, ${bottom}` : "no mask";
  made.canvas.setAttribute("aria-label", `${query}: ${found}`);
  made.notes.replaceChildren(...result.notes.map((note) => element("p", {className: "note", textContent: note})));
  const kinds = result.status === "unreadable" ? ["json"] : Object.keys(FILES);
  if (made.files.childElementCount !== kinds.length) made.files.replaceChildren("Download:", ...kinds.map((kind) =>
    element("button", {type: "button", textContent: FILES[kind][0], onclick: () => download(kind, made.answer)})));
  shown = shown.filter((each) => each.canvas.isConnected && each !== made).concat(made);
}

// Saves an answer as a file; the service writes it, as `wise-edge run` does, and is asked once more for it.
async function download(kind, {picture, query, variant, result}) {
  try {
    const blob = kind === "json" ? new Blob([JSON.stringify(result, null, 1)], {type: "application/json"})
      : await (await askOn(picture, {query, variant, output: kind})).blob();
    const link = element("a", {href: URL.createObjectURL(blob), download: `${stem}-${kind}.${FILES[kind][1]}`});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) {
    say(error.message, true);
  }
}

function scoreOf(result) {
  const told = (item) => item.score === null ? item.mask_reason || "no score" : item.score.toFixed(2);
  if (result.objects.length < 2) return result.objects.length ? told(result.objects[0]) : result.mask_reason || "no mask";
  return result.objects.map((item) => `${nameOf(item)}: ${told(item)}`).join(", ");
}

const SAID = {found: "done", nothing: "done: nothing that matches the query was found",
  unreadable: "no mask: the policy's answer could not be read"};

function rationaleOf(text) {
  const begun = text.indexOf("<think>"), from = begun < 0 ? 0 : begun + 7, end = text.indexOf("</think", from);
  return begun < 0 && text.startsWith("<") ? "" : text.slice(from, end < 0 ? undefined : end);
}

const ms = (value) => value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value.toFixed(value < 10 ? 1 : 0)} ms`;

function describe(made, result, longest) {
  const spent = result.latency_ms, bar = element("div", {className: "bar"}), legend = element("ul", {className: "legend"});
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", "time by phase");
  for (const [phase, color] of Object.entries(PHASES)) {
    if (!spent[phase]) continue;
    bar.append(element("div", {style: `width: ${100 * spent[phase] / longest}%; background: ${color}`}));
    legend.append(element("li", {}, element("i", {style: `background: ${color}`}),
      `${phase.replace("_", " ")} ${ms(spent[phase])}`));
  }
  const joules = result.energy_j && `${result.energy_j.total.toPrecision(3)} J`;
  const rows = [["score", scoreOf(result)],
    ["model", `${result.tokens.decode_steps} decode steps, ${result.tokens.forced} forced tokens`]];
  if (!live) rows.push(["energy", joules ? `${joules} (${result.energy_source})` : `not measured: ${result.energy_reason}`]);
  const once = spent.preprocess + spent.vision_encode + spent.mask_encode;
  rows.push(["image", result.frame_reused ? "reused from the previous query at no cost" : `${ms(once)} of the total, once`]);
  if (result.reason) rows.unshift(["no answer", result.reason]);
  const list = element("dl");
  for (const [name, value] of rows) list.append(element("dt", {textContent: name}), element("dd", {textContent: value}));
  made.small.textContent = [`${result.tokens.rationale} rationale tokens in ${ms(spent.total)}`, ...(joules ? [joules] : [])].join(", ");
  const words = result.rationale || "(no rationale)";
  if (made.rationale.textContent !== words) made.rationale.textContent = words;  // else a screen reader reads it again
  made.figures.replaceChildren(bar, legend, list);
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const [kind, data] = block.split("\ndata: ");
      yield [kind.replace("event: ", ""), JSON.parse(data)];
    }
  }
}

async function askOne(picture, query, variant, made, signal) {
  const answer = await askOn(picture, {query, variant, energy: true}, signal, "text/event-stream");
  let text = "";
  for await (const [kind, data] of events(answer)) {
    if (kind === "text") made.rationale.textContent = rationaleOf(text += data.delta);
    if (kind === "error") throw new Error(data.error);
    if (kind === "result") {
      signal.throwIfAborted();
      show(made, picture, query, variant, data);
      return data;
    }
  }
  throw new Error("the service ended the stream without a result");
}

async function ask(event) {
  event.preventDefault();
  const query = $("query").value.trim();
  if (live) return void (live.query = query);
  if (asking) return;
  if (!image) return say("Open a picture first.", true);
  if (!query) return say("Enter what to find.", true);
  const stop = asking = new AbortController(), {signal} = stop, asked = image;
  $("ask").disabled = true;
  say("asking …");
  try {
    if (!frames.has(asked)) await keep(asked, signal);
    $("results").replaceChildren();
    const variants = $("variant").value.split(","), done = [];
    const cards = variants.map((variant) => card(variant, "…"));
    for (const made of cards) {
      paint(asked, made.canvas);
      made.canvas.setAttribute("aria-label", `${query}: no answer yet`);
    }
    for (const [place, variant] of variants.entries()) {
      const told = cards[place].rationale;
      told.setAttribute("aria-busy", "true");  // screen readers wait until it is complete
      try {
        done.push(await askOne(asked, query, variant, cards[place], signal));
      } finally {
        told.setAttribute("aria-busy", "false");
      }
      const longest = Math.max(...done.map((result) => result.latency_ms.total));
      done.forEach((result, at) => describe(cards[at], result, longest));
    }
    const worst = ["unreadable", "nothing", "found"].find((status) => done.some((result) => result.status === status));
    say(SAID[worst], worst === "unreadable");
  } catch (error) {
    if (!signal.aborted) say(error.message, true);
  } finally {
    end(stop);
  }
}

function end(stop) {
  if (asking !== stop) return;  // the next query already runs
  asking = null;
  $("ask").disabled = false;
}

async function shoot() {
  if (shooting) return;
  if (!navigator.mediaDevices) return say(NEEDS_HTTPS, true);
  let stream;
  shooting = true;
  endLive();
  try {
    stream = await navigator.mediaDevices.getUserMedia(CAMERA);
    const video = $("video");
    video.srcObject = stream;
    await video.play();
    await new Promise((done) => setTimeout(done, 400));  // a camera's first frames are dark
    await take(await createImageBitmap(video), "camera");
  } catch (error) {
    say(`The camera is not available: ${error.message || error.name}.`, true);
  } finally {
    shooting = false;
    if (stream) stream.getTracks().forEach((track) => track.stop());
  }
}

async function openExample() {
  const turn = takes;
  try {
    const blob = await (await send(EXAMPLE, {})).blob();
    if (turn === takes) await take(blob, EXAMPLE);  // else another picture was opened meanwhile
  } catch (error) {
    say(error.message, true);
  }
}

const openFile = (file) => file.type.startsWith("video/") ? startVideo(file) : take(file, file.name);

$("form").addEventListener("submit", ask);
$("open").addEventListener("click", () => $("file").click());
$("camera").addEventListener("click", shoot);
$("live").addEventListener("click", startCamera);
$("stop").addEventListener("click", () => endLive("Stopped."));
$("example").addEventListener("click", openExample);
$("examples").addEventListener("click", (event) => {
  if (event.target.matches("button")) {
    $("query").value = event.target.textContent;
    $("form").requestSubmit();
  }
});
$("marks").addEventListener("change", () => {
  for (const {canvas, answer} of shown) paint(answer.picture, canvas, answer.result, $("marks").checked);
});
$("file").addEventListener("change", () => {
  const file = $("file").files[0];
  $("file").value = "";  // so that the same file can be chosen again
  if (file) openFile(file);
});
for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, (event) => {
  event.preventDefault();
  $("pick").classList.toggle("over", kind === "dragover");
  const file = kind === "drop" && event.dataTransfer.files[0];
  if (file) openFile(file);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files][0];
  if (file) openFile(file);
});
document.addEventListener("keydown", (event) => {
  if (!event.target.matches("body, button") || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = {o: () => $("open").click(), w: shoot, l: startCamera, "/": () => $("query").focus()}[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});
if (!navigator.mediaDevices) $("camera").title = $("live").title = NEEDS_HTTPS;
if (document.body.dataset.example) openExample();
