import assert from "node:assert/strict";
import { test } from "node:test";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { InvalidError, lifecycleKinds } from "../lib/index.js";
import { Subjects } from "../lib/subjects.js";
import { subscribe } from "../lib/subscribe.js";
import { bench, until } from "./bench.js";

/** A running subscription, whose minutes pass as look says. */
async function subscriber(b, subscription, said = () => {}, nc = b.nc, jsm = undefined) {
  const stop = new AbortController();
  const [heard, waits] = [[], []];
  const wait = (_, signal) =>
    new Promise((resolve) => {
      waits.push(resolve);
      signal.addEventListener("abort", resolve);
    });
  const nats = { nc, js: jetstream(nc), jsm: jsm ?? (await jetstreamManager(nc, { checkAPI: false })), apiPrefix: "$JS.API", subjects: new Subjects(b.prefix), onError: (err) => b.problems.push(err), wait };
  const ended = subscribe(nats, subscription, async (event) => (heard.push(event.id), said(event)), stop.signal);
  ended.catch(() => {});
  const look = async () => {
    const n = waits.length;
    waits.at(-1)?.();
    await until(() => waits.length > n, "a look for streams");
  };
  return { heard, ended, look, stop: () => (stop.abort(), ended), hears: (...ids) => until(() => ids.every((id) => heard.includes(id)), `${ids}; heard ${heard}; ${b.problems}`) };
}

const kinds = { durable: { durable: "d" }, ordered: {} };

test("several streams of lifecycle events", { concurrency: true }, async (t) => {
  for (const [name, s] of Object.entries(kinds)) {
    await t.test(`are all heard, one event at a time: ${name}`, async () => {
      const b = bench();
      await b.events(3);
      for (let i = 0; i < 9; i++) await b.tell(`${i}`, "token.stored", b.user(i % 3));
      let running = 0;
      const sub = await subscriber(b, s, async () => {
        assert.equal(++running, 1);
        await new Promise((resolve) => setTimeout(resolve, 5));
        running--;
      });
      await sub.hears(..."012345678");
      assert.equal(sub.heard.length, 9);
      await sub.stop();
      assert.deepEqual(b.problems, []);
      const some = await subscriber(b, { ...s, ...(s.durable && { durable: "some" }), users: [b.user(1), b.user(2)] });
      await some.hears(..."124578");
      assert.equal(some.heard.length, 6);
      await some.stop();
    });
    await t.test(`that are added are heard from their beginning: ${name}`, async () => {
      const b = bench();
      await b.events();
      await b.tell("before", "token.stored", "alice");
      const sub = await subscriber(b, { ...s, newOnly: true });
      await sub.look();
      await b.events(3);
      for (const n of [0, 1, 2]) await b.tell(`${n}`, "token.stored", b.user(n));
      await sub.hears("0");
      await sub.look();
      await sub.hears("1", "2");
      assert.equal(sub.heard.length, 3);
      await sub.stop();
      assert.deepEqual(b.problems, []);
    });
    await t.test(`may be missing, or gone for good: ${name}`, async () => {
      const b = bench();
      await b.events(3);
      await b.jsm.streams.delete(b.stream(2));
      const sub = await subscriber(b, s);
      await until(() => b.problems.some((err) => err.message.includes(`${b.stream(2)}: stream not found`)), "the problem");
      await b.events(3);
      const [kept, moved] = [b.user(1), b.user(2)];
      await b.tell("1", "token.stored", moved);
      await sub.hears("1");
      await b.events(2);
      await sub.look();
      b.problems.length = 0;
      // It finds the stream missing, and asks whether that is right.
      let asked = false;
      b.nc.subscribe(`$JS.API.STREAM.INFO.${b.lifecycle}`, { callback: () => (asked = true) });
      await b.nc.flush();
      await b.jsm.streams.delete(b.stream(2));
      await until(() => asked, "that it asks");
      await b.tell("2", "token.stored", kept);
      await sub.hears("2");
      assert.deepEqual(b.problems, []);
      await b.events(3);
      await b.tell("3", "token.stored", moved);
      await sub.look();
      await sub.hears("3");
      await sub.stop();
    });
  }
  await t.test("have consumers that continue where they were, each", async () => {
    const b = bench();
    await b.events(3);
    await b.tell("before", "token.stored", b.user(1));
    let go;
    const sub = await subscriber(b, { durable: "d", newOnly: true }, ({ id }) => id === "1" && !go && new Promise((resolve) => (go = resolve)));
    await until(() => b.jsm.consumers.info(b.stream(1), "d").then((info) => info.num_waiting > 0, () => false), "a pull");
    await b.tell("1", "token.stored", b.user(1));
    await sub.hears("1");
    await b.jsm.consumers.delete(b.stream(1), "d");
    await b.tell("2", "token.stored", b.user(1));
    go();
    await sub.hears("2");
    assert.ok(!sub.heard.includes("before"), `${sub.heard}`);
    assert.ok(b.problems.some((err) => err.message.startsWith(`${b.stream(1)}: `)), `${b.problems}`);
    await sub.stop();
  });
  await t.test("are shared, and an error brings an event again", async () => {
    const b = bench();
    await b.events(3);
    let failed = false;
    const said = ({ id }) => {
      if (id === "4" && !failed) throw ((failed = true), new Error("not now"));
    };
    const subs = [await subscriber(b, { durable: "d" }, said), await subscriber(b, { durable: "d" }, said)];
    for (let i = 0; i < 9; i++) await b.tell(`${i}`, "token.stored", b.user(i % 3));
    const heard = () => subs.flatMap((sub) => sub.heard);
    await until(() => heard().length === 10, "all");
    assert.deepEqual(heard().sort(), [..."0123445678"]);
    for (const sub of subs) await sub.stop();
    assert.equal(b.problems.length, 1);
  });
  await t.test("continue where a lost ordered consumer was", async () => {
    const b = bench();
    await b.events(2);
    const sub = await subscriber(b, {});
    await b.tell("1", "token.stored", b.user(1));
    await sub.hears("1");
    for await (const { name } of b.jsm.consumers.list(b.stream(1))) await b.jsm.consumers.delete(b.stream(1), name);
    await b.tell("2", "token.stored", b.user(1));
    await sub.hears("2");
    assert.deepEqual(sub.heard, ["1", "2"]);
    await sub.stop();
  });
  for (const [name, s] of Object.entries(kinds)) {
    await t.test(`wait until it is known where to continue: ${name}`, async () => {
      const b = bench();
      await b.events();
      await b.tell("1", "token.stored", "alice");
      if (s.durable) { // which knows from then on that 1 was handled
        const filter_subjects = lifecycleKinds.map((kind) => `${b.subject(kind)}.*`).sort();
        await b.jsm.consumers.add(b.lifecycle, { durable_name: s.durable, filter_subjects, ack_policy: "explicit", ack_wait: 30e9 });
        await (await (await jetstream(b.nc).consumers.get(b.lifecycle, s.durable)).next()).ackAck();
      }
      const jsm = await jetstreamManager(b.nc, { checkAPI: false });
      const sub = await subscriber(b, s, undefined, b.nc, jsm);
      if (!s.durable) await sub.hears("1");
      await until(async () => (await b.jsm.consumers.list(b.lifecycle).next()).some((info) => info.num_waiting > 0), "a pull");
      jsm.streams.info = () => Promise.reject(new Error("away"));
      for await (const { name } of b.jsm.consumers.list(b.lifecycle)) await b.jsm.consumers.delete(b.lifecycle, name);
      await until(() => b.problems.some((err) => err.message === "away"), `the problem: ${b.problems}`);
      delete jsm.streams.info;
      await b.tell("2", "token.stored", "alice");
      await sub.hears("2");
      assert.deepEqual(sub.heard, s.durable ? ["2"] : ["1", "2"]);
      await sub.stop();
    });
  }
  await t.test("end with the first error without a durable", async () => {
    const b = bench();
    await b.events(3);
    for (let i = 0; i < 9; i++) await b.tell(`${i}`, "token.stored", b.user(i % 3));
    const sub = await subscriber(b, {}, () => {
      throw new Error("boom");
    });
    await assert.rejects(sub.ended, /boom/);
    assert.equal(sub.heard.length, 1);
  });
  await t.test("must have a number", async () => {
    const b = bench();
    await b.events();
    const { config } = await b.jsm.streams.info(b.lifecycle);
    const says = (number) => b.jsm.streams.update(b.lifecycle, { ...config, metadata: { "latchkey-partitions": number } });
    for (const number of ["", "0", "-1", "02", "2.0", "two", "257"]) {
      await says(number);
      for (const s of Object.values(kinds)) await assert.rejects(b.client().subscribe(s, () => {}), (err) => err instanceof InvalidError && err.message.includes(`"${number}"`));
    }
    await says("1");
    const sub = await subscriber(b, { durable: "d" });
    await sub.look();
    await says("two");
    await sub.look();
    assert.ok(b.problems.some((err) => err instanceof InvalidError));
    await b.tell("1", "token.stored", "alice");
    await sub.hears("1");
    await sub.stop();
  });
});

// The streams without a prefix are one test's at a time.
test("permissions on several streams", async (t) => {
  const b = bench("");
  await b.events();
  const own = await connect({ servers: process.env.NATS_URL, user: "first", pass: "x", inboxPrefix: "_INBOX_observer" });
  t.after(() => own.close()); // or the process would not end
  const d = { durable: "observer" };
  const sub = await subscriber(b, d, undefined, own);
  await sub.look();
  await b.events(2);
  await sub.look();
  await until(() => b.problems.some((err) => err.message.includes("LATCHKEY_LIFECYCLE_1")), "the refusal");
  await b.tell("0", "token.expired", b.user(0));
  await sub.hears("0");
  await sub.stop();
  await assert.rejects((await subscriber(b, d, undefined, own)).ended, /LATCHKEY_LIFECYCLE_1/);
  for (const n of [0, 1]) await b.jsm.streams.delete(b.stream(n));
});
