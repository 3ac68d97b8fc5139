// A function that streams its answer: does what its event says.
import { existsSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

async function write(stream, part) {
  if (!stream.write(part)) await once(stream, 'drain');
}

export const handler = awslambda.streamifyResponse(async (event, stream) => {
  switch (event.do) {
    case 'wait':
      await write(stream, event.first);
      while (!existsSync(event.file)) await sleep(5);
      await write(stream, event.second);
      break;
    case 'many':
      for (let n = 0; n < event.count; n += 1) await write(stream, String(n).padStart(8, '0') + 'x'.repeat(event.size - 8));
      break;
    case 'report':
      for (let n = 1; n <= event.count; n += 1) {
        await write(stream, 'x'.repeat(event.size));
        writeFileSync(event.file, String(n));
      }
      break;
    case 'break':
      await write(stream, event.first);
      await sleep(20);
      throw new RangeError('broken off: 🧀');
    case 'exit':
      await write(stream, event.first);
      await sleep(50);
      process.exit(1);
      break;
    case 'http': {
      const http = awslambda.HttpResponseStream.from(stream, { statusCode: 201, headers: { 'x-test': 'yes' } });
      http.write('hello');
      break;
    }
  }
  stream.end();
});
