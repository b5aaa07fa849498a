// The page: takes images, shows scores and attention. worker.js computes.

import { geometry } from "./transform.js";

const TOP = 5;
const INFERNO = [
  [0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164],
];
const part = (name) => document.getElementById(name);
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map(); // questions to the worker that have no answer yet
let card = null;
let camera = null; // the stream, while it is on
let latest = 0; // number of the last image: answers about earlier ones come too late
let shown = null; // the last image and its attention

// -- the model ----------------------------------------------------------------

worker.onmessage = ({ data }) => {
  if (data.card) start(data.card);
  else if (data.loading) part("status").textContent = data.loading;
  else if (data.id === undefined) fail(data.error);
  else {
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error) reject(new Error(data.error));
    else resolve(data);
  }
};
worker.onerror = (event) => fail(`The model could not be started: ${event.message || "see the console"}`);

function start(loaded) {
  card = loaded;
  part("title").textContent = card.title;
  document.title = card.title;
  part("about").textContent = `${card.model}, ${card.class_names.length} classes, ${card.size}`;
  part("status").textContent = "Ready";
  for (const button of document.querySelectorAll("button, input")) button.disabled = false;
  part("attention-control").hidden = !card.attention;
  const wanted = new URLSearchParams(location.search).get("image");
  if (wanted) fetch(wanted).then((response) => response.blob()).then((blob) => classify(blob, wanted)).catch(failed);
}

function ask(bitmap) {
  const id = crypto.randomUUID ? crypto.randomUUID() : String(Math.random());
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, bitmap }, [bitmap]);
  });
}

// -- an image -----------------------------------------------------------------

async function classify(source, name) {
  if (!card) return;
  const number = ++latest;
  const bitmap = await createImageBitmap(source, { colorSpaceConversion: "none", premultiplyAlpha: "none" }).catch(() => {
    throw new Error(`${name} is not an image that this browser can read`);
  });
  const image = view(bitmap);
  if (!camera) part("status").textContent = "Computing";
  const answer = await ask(bitmap);
  if (number !== latest) return;
  shown = { image, attention: answer.attention };
  draw();
  list(answer.scores);
  part("status").textContent = `${name}: ${Math.round(answer.milliseconds)} ms`;
}

/** The square of the image that the model sees, large enough to look at. */
function view(bitmap) {
  const box = geometry(bitmap.width, bitmap.height, card);
  const canvas = document.createElement("canvas");
  const side = Math.max(448, card.image_size);
  canvas.width = canvas.height = side;
  const [sx, sy] = [bitmap.width / box.width, bitmap.height / box.height];
  const scale = side / card.image_size;
  const [wide, high] = [box.x[1] - box.x[0], box.y[1] - box.y[0]];
  const [left, top] = [Math.floor((card.image_size - wide) / 2), Math.floor((card.image_size - high) / 2)];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  const from = [box.x[0] * sx, box.y[0] * sy, wide * sx, high * sy];
  context.drawImage(bitmap, ...from, left * scale, top * scale, wide * scale, high * scale);
  return canvas;
}

function draw() {
  if (!shown) return;
  const canvas = part("image");
  canvas.width = canvas.height = shown.image.width;
  const context = canvas.getContext("2d");
  context.drawImage(shown.image, 0, 0);
  const share = Number(part("attention").value) / 100;
  if (shown.attention && share > 0) {
    context.globalAlpha = Math.min(1, 2 * share); // of grey: colours are the map's
    context.globalCompositeOperation = "saturation";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.globalCompositeOperation = "source-over";
    context.globalAlpha = share;
    context.imageSmoothingQuality = "high";
    context.drawImage(heat(shown.attention), 0, 0, canvas.width, canvas.height);
    context.globalAlpha = 1;
  }
  part("result").hidden = false;
}

/** The map as a small image in colours, by its own range: it shows which places count more, not how much. */
function heat({ values, side }) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(side, side);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  values.forEach((value, at) => {
    const share = (value - low) / Math.max(high - low, 1e-12);
    pixels.data.set([...color(share), 255 * (0.6 + 0.4 * share)], 4 * at); // where little is seen, the image stays
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function color(share) {
  const place = share * (INFERNO.length - 1);
  const below = Math.min(Math.floor(place), INFERNO.length - 2);
  return INFERNO[below].map((level, at) => level + (place - below) * (INFERNO[below + 1][at] - level));
}

function list(scores) {
  const best = scores.map((score, label) => ({ score, label })).sort((a, b) => b.score - a.score).slice(0, TOP);
  part("scores").replaceChildren(...best.map(({ score, label }) => row(card.class_names[label], score)));
  part("spoken").textContent = camera ? "" : `${card.class_names[best[0].label]}, ${percent(best[0].score)}`;
}

function row(name, score) {
  const item = document.createElement("li");
  const label = Object.assign(document.createElement("span"), { className: "name", textContent: name });
  const value = Object.assign(document.createElement("span"), { className: "value", textContent: percent(score) });
  const bar = document.createElement("div");
  bar.className = "bar";
  bar.style.setProperty("--share", score);
  item.dataset.score = score;
  item.append(label, value, bar);
  return item;
}

const percent = (score) => `${(100 * score).toFixed(1)} %`;

// -- where images come from ---------------------------------------------------

const failed = (error) => fail(error.message);

function fail(message) {
  part("status").textContent = message;
  part("status").classList.add("error");
}

function take(source, name) {
  part("status").classList.remove("error");
  stop();
  classify(source, name).catch(failed);
}

function takeFrom(transfer) {
  const file = [...transfer.files].find((one) => one.type.startsWith("image/"));
  if (file) take(file, file.name || "the pasted image");
  else fail("That is not an image");
}

part("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = ""; // so that the same file can be chosen again
  if (file) take(file, file.name);
});
part("choose").addEventListener("click", () => part("file").click());
part("camera").addEventListener("click", () => (camera ? stop() : film().catch(failed)));
part("attention").addEventListener("input", draw);
document.addEventListener("paste", (event) => event.clipboardData.files.length && takeFrom(event.clipboardData));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    part("zone").classList.toggle("over", kind === "dragover");
    if (kind === "drop") takeFrom(event.dataTransfer);
  });
}

/** Classifies what the camera sees, one frame after the other, until it is stopped. */
async function film() {
  part("status").classList.remove("error");
  if (!navigator.mediaDevices) throw new Error("The camera needs https, or this page on localhost");
  camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } }).catch((error) => {
    throw new Error(`The camera cannot be used: ${error.message}`);
  });
  part("camera").textContent = "Stop the camera";
  const video = Object.assign(document.createElement("video"), { srcObject: camera, muted: true, playsInline: true });
  await video.play();
  while (camera) await classify(video, "camera");
}

function stop() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  latest++;
  part("camera").textContent = "Use the camera";
}
