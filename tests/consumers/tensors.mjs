// A case's tensors for ONNX Runtime's JavaScript packages, from the raw bytes of each.
const ARRAYS = { float32: Float32Array, int64: BigInt64Array, int32: Int32Array, uint8: Uint8Array };

export function tensor(ort, { type, dims }, bytes) {
  const whole = new Uint8Array(bytes).slice().buffer;
  return new ort.Tensor(type, new ARRAYS[type](whole), dims);
}

export function bytesOf({ data }) {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
