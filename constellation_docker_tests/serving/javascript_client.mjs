// Calls @huggingface/inference: reads {"url", "calls": [{"method", "args"}]} and writes one answer a call.
// {"$base64": "…"} in the arguments stands for a Blob.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.argv[2] + "/");
const { InferenceClient } = await import(pathToFileURL(require.resolve("@huggingface/inference")).href);

let text = "";
for await (const chunk of process.stdin) text += chunk;
const { url, calls } = JSON.parse(text);
const client = new InferenceClient("hf_not_a_token").endpoint(url);

const revive = (value) => {
  if (Array.isArray(value)) return value.map(revive);
  if (value === null || typeof value !== "object") return value;
  if ("$base64" in value) return new Blob([Buffer.from(value.$base64, "base64")], { type: value.type ?? "" });
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, revive(item)]));
};

const answers = [];
for (const { method, args } of calls) {
  try {
    const result = client[method](revive(args));
    if (Symbol.asyncIterator in result) {
      const pieces = [];
      for await (const piece of result) pieces.push(piece);
      answers.push({ answer: pieces });
    } else {
      answers.push({ answer: await result });
    }
  } catch (error) {
    answers.push({ error: error.message, status: error.httpResponse?.status });
  }
}
process.stdout.write(JSON.stringify(answers));
