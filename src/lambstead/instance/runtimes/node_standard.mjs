// What AWS's platform runs around its 3.x interface client, whose own command line would print a line into every function's log.
// Run as `node node_standard.mjs CLIENT` with the folder of the published package.
import { pathToFileURL } from 'node:url';

const { run } = await import(pathToFileURL(`${process.argv[2]}/dist/index.mjs`));
await run(process.env.LAMBDA_TASK_ROOT, process.env._HANDLER);
