// Segment an image by words: `node node_words.mjs FOLDER IMAGE.png WORD...`, of an export --with-preprocess.
// npm install --ignore-scripts onnxruntime-node pngjs @huggingface/tokenizers
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/package.json`);
const ort = require("onnxruntime-node");
const { PNG } = require("pngjs");
const { Tokenizer } = require("@huggingface/tokenizers");

const [folder, path, ...words] = process.argv.slice(2);
const read = (name) => JSON.parse(readFileSync(`${folder}/${name}`, "utf8"));
const run = async (name, feed) => (await ort.InferenceSession.create(`${folder}/${name}.onnx`)).run(feed);
const integers = (values, dims) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), dims);
const number = (value) => new ort.Tensor("float32", [value], []);

// Texts to ids by the manifest's `text`: what stands around each, the rule for one that is too long, what fills up.
const { text, defaults } = read("manifest.json");
const tokenizer = new Tokenizer(read("tokenizer.json"), {});
const rows = words.map((word) => {
  const own = tokenizer.encode(text.templates.photo[0].replace("{}", word), { add_special_tokens: false }).ids;
  const ids = [text.start_token, ...own, text.end_token].filter((id) => id !== null);
  return ids.length <= text.context_length ? ids : [...ids.slice(0, text.context_length - 1), text.end_token];
});
const length = text.filled ? text.context_length : Math.max(...rows.map((ids) => ids.length));
const filled = rows.flatMap((ids) => [...ids, ...Array(length - ids.length).fill(text.padding_token)]);
const { text_embeddings } = await run("text_encoder", { token_ids: integers(filled, [words.length, length]) });

const { width, height, data } = PNG.sync.read(readFileSync(path)); // RGBA
const rgb = new Uint8Array(width * height * 3);
for (let i = 0; i < width * height; i++) rgb.set(data.subarray(4 * i, 4 * i + 3), 3 * i);
const { patch_features } = await run("image_encoder", { image: new ort.Tensor("uint8", rgb, [1, height, width, 3]) });

const synonyms = integers([-1], [1, 1]); // each text is a class
const { cosines } = await run("cosines", { patch_features, text_embeddings, synonyms });
const settings = { logit_scale: number(defaults.logit_scale), threshold: number(defaults.threshold) };
const { labels } = await run("labels", { cosines, output_size: integers([height, width], [2]), ...settings });
for (const [label, name] of ["background", ...words].entries()) {
  console.log(JSON.stringify(name), labels.data.filter((each) => each === label).length);
}
