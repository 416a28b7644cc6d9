// Initiates the replica set and makes the worker's user. It may run again.
const fs = require("fs");
const secret = (name) => fs.readFileSync(`/run/secrets/${name}`, "utf8").trim();

const admin = connect(`mongodb://root:${secret("mongodb-root-password")}@mongodb:27017/admin?directConnection=true`);
try {
  admin.adminCommand({ replSetGetStatus: 1 });
} catch (e) {
  if (e.codeName !== "NotYetInitialized") throw e;
  admin.adminCommand({ replSetInitiate: { _id: "latchkey", members: [{ _id: 0, host: "mongodb:27017" }] } });
}
while (!admin.hello().isWritablePrimary) sleep(200);

const latchkey = admin.getSiblingDB("latchkey");
const user = { pwd: secret("mongodb-password"), roles: [{ role: "readWrite", db: "latchkey" }] };
if (latchkey.getUser("latchkey")) latchkey.updateUser("latchkey", user);
else latchkey.createUser({ user: "latchkey", ...user });
