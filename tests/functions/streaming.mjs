// A function that streams its answer: does what its event says. With a file it breaks off or exits once the file is there.
import { existsSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

async function until(file) {
  while (file && !existsSync(file)) await sleep(5);
}

async function write(stream, part) {
  if (!stream.write(part)) await once(stream, 'drain');
}

export const handler = awslambda.streamifyResponse(async (event, stream) => {
  switch (event.do) {
    case 'wait':
      await write(stream, event.first);
      await until(event.file);
      await write(stream, event.second);
      break;
    case 'many':
      for (let n = 0; n < event.count; n += 1) await write(stream, String(n).padStart(8, '0') + 'x'.repeat(event.size - 8));
      break;
    case 'fill':
      for (let left = event.size; left > 0; left -= 1000) await write(stream, 'x'.repeat(Math.min(left, 1000)));
      if (event.fails) throw new Error('in the middle');
      break;
    case 'report':
      for (let n = 1; n <= event.count; n += 1) {
        await write(stream, 'x'.repeat(event.size));
        writeFileSync(event.file, String(n));
      }
      break;
    case 'break':
      await write(stream, event.first);
      await until(event.file);
      throw new RangeError('broken off: 🧀');
    case 'exit':
      await write(stream, event.first);
      await until(event.file);
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
