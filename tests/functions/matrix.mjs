// The function of the runtime matrix for Node.js, as an ES module: does what its event says.
import { existsSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

if (process.env.BROKEN) throw new RangeError('no init today: 🧀');

export const handler = async (event, context) => {
  switch (event.do) {
    case 'echo':
      return event.value;
    case 'fail':
      throw new TypeError(event.message);
    case 'variables':
      return { ...process.env };
    case 'overstay':
      await sleep(event.seconds * 1000);
      return 'late';
    case 'meet':
      writeFileSync(`${event.folder}/in-${context.awsRequestId}`, '');
      while (!existsSync(`${event.folder}/open`)) await sleep(5);
      return context.awsRequestId;
    case 'print':
      console.log(event.text);
      return null;
    case 'exit':
      return process.exit(event.code);
    case 'uncaught':
      setImmediate(() => { throw new Error('nobody catches this'); });
      return await new Promise(() => {});
    case 'context':
      return { id: context.awsRequestId, arn: context.invokedFunctionArn };
  }
};
