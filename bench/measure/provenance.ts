/** What a measurement was made with and on. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Device } from '../../engine/index.ts';

export interface Provenance {
  readonly adapter: { readonly description: string; readonly software: boolean; readonly features: readonly string[] };
  readonly versions: Readonly<Record<'insula' | 'webgpu' | 'node', string>>;
  /** The working tree's commit; 'unknown' where git does not say. */
  readonly commit: string;
  /** Whether files differed from the commit; null where git does not say. */
  readonly modified: boolean | null;
  /** ISO 8601, UTC. */
  readonly date: string;
}

/** The description of an adapter holds the name and the version of its driver. */
export function provenance(device: Device): Provenance {
  const { description, software, features } = device;
  const commit = git('rev-parse', 'HEAD');
  const status = git('status', '--porcelain');
  return {
    adapter: { description, software, features: [...features] },
    versions: {
      insula: versionIn('insula/package.json'),
      webgpu: versionIn('webgpu/package.json'),
      node: process.version,
    },
    commit: commit || 'unknown',
    modified: status === null ? null : status !== '',
    date: new Date().toISOString(),
  };
}

/** In one line. */
export function provenanceLine({ adapter, versions, date, ...tree }: Provenance): string {
  const kind = adapter.software ? ' (software adapter)' : '';
  return `${adapter.description}${kind}; insula ${versions.insula}, ${treeText(tree)}; webgpu ${versions.webgpu}, node ${versions.node}; ${date}`;
}

/** Of an earlier run, how a comparison with it begins. */
export function comparedWith({ adapter, date, ...tree }: Provenance): string {
  return `compared with ${date}, ${treeText(tree)}, on ${adapter.description}`;
}

function treeText({ commit, modified }: Pick<Provenance, 'commit' | 'modified'>): string {
  return `commit ${commit.slice(0, 10)}${modified ? ', modified' : ''}`;
}

function versionIn(manifest: string): string {
  return JSON.parse(readFileSync(createRequire(import.meta.url).resolve(manifest), 'utf8')).version;
}

function git(...args: string[]): string | null {
  if (!import.meta.url.endsWith('.ts')) return null; // the package: git would speak of the project that it is installed in
  try {
    return execFileSync('git', args, {
      cwd: import.meta.dirname,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return null; // no git, or no working tree
  }
}
