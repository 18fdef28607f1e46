#!/usr/bin/env node
// Everything else is imported after this check, in syntax that any Node from 18 on can parse.
const found = process.versions.node;
if (Number(found.split('.')[0]) < 24) {
  process.stderr.write(`svidecar needs Node 24 or newer, found ${found}\n`);
  process.exit(1);
}

const { runCli } = await import('./cli/cli.ts');
const { runApp } = await import('./app/app.ts');
const { createLatest } = await import('./runtime/latest.ts');

const argv = process.argv.slice(2);
const stop = new AbortController();
// SIGHUP reloads a running sidecar; everything else ends with its terminal.
for (const name of ['SIGTERM', 'SIGINT', ...(argv[0] === 'run' ? [] : ['SIGHUP' as const])] as const) {
  process.on(name, () => {
    if (stop.signal.aborted) process.exit(1);
    stop.abort();
  });
}

const hangups = createLatest(0);
if (argv[0] === 'run') process.on('SIGHUP', () => hangups.set(hangups.current() + 1));

let unread = false;
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    // A full disk costs lines and nothing else; when the reader is gone, all is ended in order.
    if (error.code !== 'EPIPE') return;
    unread = true;
    stop.abort();
  });
}

const code = await runCli({
  argv,
  env: process.env,
  stdout: process.stdout,
  stderr: process.stderr,
  signal: stop.signal,
  program: [process.execPath, ...process.execArgv, import.meta.filename],
  hangups: (signal) => hangups.changes(signal),
  nodeVersion: process.versions.node,
  kill: (pid, name) => process.kill(pid, name),
  runApp,
});
process.exit(unread ? 1 : code);
