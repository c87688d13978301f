// Node's HTTP server, which answers each request with what it took it for.
const http = require('http');
const table = Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});
const crc = (bytes) => {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = table[(sum ^ byte) & 255] ^ (sum >>> 8);
  return ((sum ^ 0xffffffff) >>> 0).toString(16).padStart(8, '0');
};
const options = { keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0, maxHeaderSize: 1 << 17 };
const server = http.createServer(options, (request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    const body = Buffer.concat(pieces);
    response.setHeader('x-seen', `0 ${body.length} ${crc(body)} ${request.method} ${request.url}`);
    response.setHeader('content-length', 0);
    response.end();
  });
});
server.maxHeadersCount = 0;
// What is refused is so behind the answers to what came before it.
server.on('clientError', (error, socket) => setImmediate(() => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')));
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
