// Holds asyncapi.yaml and the JSON Schemas beside it, in the folder that EVENTS
// names, against the tools that read such files.
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { Parser, fromFile } from "@asyncapi/parser";
import Ajv from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const folder = process.env.EVENTS;

const schemas = join(folder, "schemas");
// Two rules of strict mode are off: they forbid "string or null", and an anyOf
// that requires what stands in the properties around it.
const ajv = new Ajv({ strict: true, strictRequired: false, allowUnionTypes: true });
addFormats(ajv);
for (const name of await readdir(schemas)) {
  const schema = JSON.parse(await readFile(join(schemas, name), "utf8"));
  ajv.compile(schema); // throws
  console.log(`schema ${name}`);
}

// The parser knows JSON Schema of draft 7 alone.
const parser = new Parser();
parser.registerSchemaParser({
  getMimeTypes: () => ["application/schema+json;version=draft-2020-12"],
  validate({ data, path }) {
    try {
      // Schemas that several payloads share have an $id each time.
      const once = new Ajv({ strict: true, strictRequired: false, strictTypes: false, allowUnionTypes: true });
      once.addVocabulary(["x-parser-schema-id", "x-parser-unique-object-id"]);
      addFormats(once).compile(data);
      return [];
    } catch (err) {
      return [{ message: err.message, path }];
    }
  },
  parse: ({ data }) => data,
});

const file = join(folder, "asyncapi.yaml");
const { document, diagnostics } = await fromFile(parser, file).parse({ source: file });
const faults = diagnostics.filter((d) => !["asyncapi-latest-version", "asyncapi-info-contact"].includes(d.code));
for (const d of faults) console.error(`${d.code} at ${d.path.join(".")}: ${d.message}`);
if (!document || faults.length > 0) process.exit(1);
for (const channel of document.channels().all()) console.log(`channel ${channel.address()}`);

// Every channel is of use, and every payload says which JSON Schema it is.
const operations = document.operations().all();
const used = new Set(operations.flatMap((o) => [...o.channels().all(), o.reply()?.channel()]).filter(Boolean).map((c) => c.id()));
const idle = document.channels().all().map((c) => c.id()).filter((id) => !used.has(id));
const unsaid = document.messages().all().filter((m) => m.hasPayload() && m.name() !== "token.keys" && !m.schemaFormat()?.includes("2020-12")).map((m) => m.id());
if (idle.length > 0 || unsaid.length > 0) throw new Error(`channels without an operation: ${idle}; payloads without a schemaFormat: ${unsaid}`);
