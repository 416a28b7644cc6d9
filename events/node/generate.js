// Writes types/: the messages from the JSON Schemas in ../schemas, the rest from the comments in
// lib/. With --check it writes nothing and fails where types/ is out of date.
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { compile } from "json-schema-to-typescript";

const here = dirname(fileURLToPath(import.meta.url));
const types = join(here, "types");
const names = {
  "integration.connected": "Connected",
  "integration.disconnected": "Disconnected",
  "integration.rejected": "Rejected",
  "token.get.reply": "TokenReply",
  "token.get.request": "TokenRequest",
  "token.keys.reply": "TokenKeys",
  "token.lifecycle": "Lifecycle",
  "token.mfa.reply": "MFAReply",
  "token.mfa.request": "MFARequest",
};

// What a schema says of values that no type can say, and its sealed form, which the client
// seals and opens.
function typed(schema) {
  if (Array.isArray(schema)) return schema.map(typed);
  if (typeof schema !== "object" || schema === null) return schema;
  if (schema.if && schema.else) {
    const { if: _if, then: _then, else: plain, ...rest } = schema;
    return typed({ ...rest, ...plain });
  }
  const out = {};
  for (const [key, value] of Object.entries(schema)) {
    if (["not", "propertyNames", "maxProperties", "minItems", "maxItems"].includes(key)) continue;
    // Alternatives beside properties only say which of those are required.
    if ((key === "anyOf" || key === "oneOf") && schema.properties) continue;
    if (key === "sealed" || value === false && key !== "additionalProperties") continue;
    out[key] = typed(value);
  }
  return out;
}

async function messages() {
  let text = "// Made from the JSON Schemas by generate.js.\n";
  const schemas = join(here, "..", "schemas");
  for (const file of (await readdir(schemas)).sort()) {
    const name = names[file.replace(/\.json$/, "")];
    if (!name) throw new Error(`generate.js has no name for the type of ${file}`);
    const { $schema: _, $id: __, title: ___, ...schema } = JSON.parse(await readFile(join(schemas, file), "utf8"));
    const prefixed = JSON.parse(JSON.stringify(schema).replace(/#\/\$defs\/(\w)/g, (_, c) => `#/$defs/${name}${c.toUpperCase()}`));
    prefixed.$defs &&= Object.fromEntries(Object.entries(prefixed.$defs).map(([key, value]) => [name + key[0].toUpperCase() + key.slice(1), value]));
    text += "\n" + (await compile(typed(prefixed), name, { additionalProperties: false, bannerComment: "", unreachableDefinitions: false }));
  }
  return text;
}

const made = { "messages.d.ts": await messages() };
const check = process.argv.includes("--check");
await writeFile(join(types, "messages.d.ts"), check ? await readFile(join(types, "messages.d.ts")) : made["messages.d.ts"]);
const out = await mkdtemp(join(tmpdir(), "latchkey-types-"));
try {
  execFileSync(process.execPath, [join(here, "node_modules/typescript/bin/tsc"), "-p", here, "--outDir", out], { stdio: "inherit" });
  for (const file of await readdir(out)) made[file] = await readFile(join(out, file), "utf8");
} finally {
  await rm(out, { recursive: true });
}
for (const [file, text] of Object.entries(made)) {
  const there = await readFile(join(types, file), "utf8").catch(() => "");
  if (there === text) continue;
  if (check) {
    console.error(`types/${file} is out of date: run "make generate"`);
    process.exitCode = 1;
  } else {
    await writeFile(join(types, file), text);
  }
}
for (const file of await readdir(types)) {
  if (!(file in made)) {
    if (!check) await rm(join(types, file));
    else (console.error(`types/${file} is made from nothing`), (process.exitCode = 1));
  }
}
