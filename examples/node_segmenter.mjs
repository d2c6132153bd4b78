// Segment an image by a fixed vocabulary: `node node_segmenter.mjs FOLDER IMAGE.png`.
// npm install --ignore-scripts onnxruntime-node pngjs: the CPU's library is in the package.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/package.json`);
const ort = require("onnxruntime-node");
const { PNG } = require("pngjs");

const [folder, path] = process.argv.slice(2);
const { vocabulary } = JSON.parse(readFileSync(`${folder}/manifest.json`, "utf8"));
const { width, height, data } = PNG.sync.read(readFileSync(path)); // RGBA
const rgb = new Uint8Array(width * height * 3);
for (let i = 0; i < width * height; i++) rgb.set(data.subarray(4 * i, 4 * i + 3), 3 * i);

const session = await ort.InferenceSession.create(`${folder}/segmenter.onnx`);
const { labels } = await session.run({ image: new ort.Tensor("uint8", rgb, [1, height, width, 3]) });
for (const [label, name] of ["background", ...Object.keys(vocabulary.classes)].entries()) {
  console.log(name, labels.data.filter((each) => each === label).length);
}
