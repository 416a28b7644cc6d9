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

const file = join(folder, "asyncapi.yaml");
const { document, diagnostics } = await fromFile(new Parser(), file).parse({ source: file });
const faults = diagnostics.filter((d) => !["asyncapi-latest-version", "asyncapi-info-contact"].includes(d.code));
for (const d of faults) console.error(`${d.code} at ${d.path.join(".")}: ${d.message}`);
if (!document || faults.length > 0) process.exit(1);
for (const channel of document.channels().all()) console.log(`channel ${channel.address()}`);
