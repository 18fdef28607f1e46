// Says in plain words what is wrong when the Node that npm scripts run is not the pinned one: it comes with the package
// `node` by an install script, which some set-ups forbid. Any Node from 18 on can run this.
const found = process.versions.node;
if (Number(found.split('.')[0]) < 24) {
  process.stderr.write(
    `error: npm scripts run Node ${found}, but this project needs its own, which the dev dependency "node" installs.\n` +
      'Run `npm ci` first; where install scripts are off (npm config get ignore-scripts), run `npm rebuild node` too.\n',
  );
  process.exit(1);
}
