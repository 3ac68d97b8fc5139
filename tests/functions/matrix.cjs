// The same for CommonJS: what differs is how it is loaded.
'use strict';
const fs = require('node:fs');
const { setTimeout: sleep } = require('node:timers/promises');

if (process.env.BROKEN) throw new RangeError('no init today: 🧀');

exports.handler = async (event, context) => {
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
      fs.writeFileSync(`${event.folder}/in-${context.awsRequestId}`, '');
      while (!fs.existsSync(`${event.folder}/open`)) await sleep(5);
      return context.awsRequestId;
    case 'print':
      console.log(event.text);
      return null;
    case 'exit':
      return process.exit(event.code);
    case 'context':
      return { id: context.awsRequestId, arn: context.invokedFunctionArn };
  }
};
