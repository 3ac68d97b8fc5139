// A function behind a streaming URL: does what the query says.
import { setTimeout as sleep } from 'node:timers/promises';
import { existsSync } from 'node:fs';

export const handler = awslambda.streamifyResponse(async (event, stream) => {
  const query = event.queryStringParameters ?? {};
  switch (query.do) {
    case 'http': {
      const http = awslambda.HttpResponseStream.from(stream, {
        statusCode: 201,
        headers: { 'Content-Type': 'text/plain', 'X-Test': 'yes' },
        cookies: ['a=1', 'b=2'],
      });
      http.write('first|');
      while (query.file && !existsSync(query.file)) await sleep(5);
      http.write(event.requestContext.http.path);
      http.end();
      return;
    }
    case 'break': {
      const http = awslambda.HttpResponseStream.from(stream, { statusCode: 200 });
      http.write('begun');
      await sleep(20);
      throw new RangeError('broken off');
    }
    case 'early':
      throw new RangeError('nothing was sent');
    case 'nonsense':
      stream.setContentType('application/vnd.awslambda.http-integration-response');
      stream.write('this is no prelude');
      stream.end();
      return;
    default:
      stream.setContentType('text/csv');
      stream.write('a,b\n');
      stream.end();
  }
});
