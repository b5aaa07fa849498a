// Loads the model and computes, beside the page so that the page never stands still.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { prepare } from "./transform.js";

ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;

const ready = load();
ready.catch((error) => postMessage({ error: `The model could not be loaded: ${error.message}` }));

async function load() {
  const card = await (await fetch("./model.json")).json();
  const bytes = await download(`./${card.file}`, card.bytes);
  postMessage({ loading: "Starting the model" });
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  postMessage({ card });
  return { card, session };
}

async function download(address, total) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address}: HTTP ${response.status}`);
  const bytes = new Uint8Array(total);
  const reader = response.body.getReader();
  for (let at = 0; ; ) {
    const { done, value } = await reader.read();
    if (done) return bytes;
    bytes.set(value, at);
    at += value.length;
    postMessage({ loading: `Loading the model: ${Math.round((100 * at) / total)} %` });
  }
}

onmessage = async ({ data: { id, bitmap } }) => {
  try {
    const { card, session } = await ready;
    const pixels = read(bitmap);
    const begun = performance.now();
    const input = prepare(pixels.data, pixels.width, pixels.height, card);
    const images = new ort.Tensor("float32", input, [1, 3, card.image_size, card.image_size]);
    const results = await session.run({ [card.input]: images });
    const scores = softmax(Array.from(results.logits.data, (logit) => logit / (card.temperature ?? 1)));
    const attention = results.attention && { values: results.attention.data, side: results.attention.dims[1] };
    postMessage({ id, scores, attention, milliseconds: performance.now() - begun });
  } catch (error) {
    postMessage({ id, error: `This image could not be classified: ${error.message}` });
  }
};

function read(bitmap) {
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, context.canvas.width, context.canvas.height);
}

function softmax(logits) {
  const highest = Math.max(...logits);
  const shifted = logits.map((logit) => Math.exp(logit - highest));
  const sum = shifted.reduce((total, value) => total + value, 0);
  return shifted.map((value) => value / sum);
}
