// Runs the cases of a file in node: `node consume.mjs node|web cases.json`, web by WebAssembly.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { bytesOf, tensor } from "./tensors.mjs";

const [kind, path, home] = process.argv.slice(2);
const resolve = createRequire(`${home}/package.json`).resolve;
const ort = await import(pathToFileURL(resolve(`onnxruntime-${kind}`)));
if (kind === "web") ort.env.wasm.numThreads = 1;

for (const { graph, inputs, outputs } of JSON.parse(readFileSync(path))) {
  mkdirSync(outputs);
  try {
    const session = await ort.InferenceSession.create(kind === "web" ? readFileSync(graph) : graph);
    const feed = Object.entries(inputs).map(([name, told]) => [name, tensor(ort, told, readFileSync(told.file))]);
    const told = {};
    for (const [name, value] of Object.entries(await session.run(Object.fromEntries(feed)))) {
      const file = `${outputs}/${name}.bin`;
      writeFileSync(file, bytesOf(value));
      told[name] = { type: value.type, dims: value.dims, file };
    }
    writeFileSync(`${outputs}/outputs.json`, JSON.stringify(told));
  } catch (error) {
    writeFileSync(`${outputs}/error.txt`, String(error));
  }
}
