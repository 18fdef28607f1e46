#!/usr/bin/env node
// Everything else is imported after this check, in syntax that any Node from 18 on can parse.
const found = process.versions.node;
if (Number(found.split('.')[0]) < 24) {
  process.stderr.write(`svidecar needs Node 24 or newer, found ${found}\n`);
  process.exit(1);
}

const { runCli } = await import('./cli/cli.ts');
const { runApp } = await import('./app/app.ts');

const stop = new AbortController();
for (const name of ['SIGTERM', 'SIGINT'] as const) {
  process.on(name, () => {
    if (stop.signal.aborted) process.exit(1);
    stop.abort();
  });
}

process.exit(
  await runCli({
    argv: process.argv.slice(2),
    env: process.env,
    stdout: process.stdout,
    stderr: process.stderr,
    signal: stop.signal,
    program: [process.execPath, ...process.execArgv, import.meta.filename],
    nodeVersion: process.versions.node,
    runApp,
  }),
);
