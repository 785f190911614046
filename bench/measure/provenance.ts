/** The adapter, versions and commit of a measurement. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import * as v from 'valibot';
import type { Device } from '../../engine/index.ts';

/** Fields that every result has beside its measurements. */
export const provenanceFields = {
  adapter: v.object({ description: v.string(), software: v.boolean(), features: v.array(v.string()) }),
  versions: v.object({ insula: v.string(), webgpu: v.string(), node: v.string() }),
  /** The working tree's commit; 'unknown' if git does not know it. */
  commit: v.string(),
  /** Whether files differed from the commit; null if git does not know it. */
  modified: v.nullable(v.boolean()),
  /** ISO 8601, UTC. */
  date: v.string(),
};
export type Provenance = v.InferOutput<v.ObjectSchema<typeof provenanceFields, undefined>>;

/** The description of an adapter holds the name and the version of its driver. */
export function provenance(device: Device): Provenance {
  const { description, software, features } = device;
  const commit = git('rev-parse', 'HEAD');
  // Results are no part of what is measured.
  const status = git('status', '--porcelain', '--', ':/', ':(top,exclude)bench/results');
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

export function provenanceLine({ adapter, versions, date, ...tree }: Provenance): string {
  const kind = adapter.software ? ' (software adapter)' : '';
  return `${adapter.description}${kind}; insula ${versions.insula}, ${treeText(tree)}; webgpu ${versions.webgpu}, node ${versions.node}; ${date}`;
}

export function treeText({ commit, modified }: Pick<Provenance, 'commit' | 'modified'>): string {
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
