// Rows into a key/value cache, in place: the one tensor besides optimizer state that an op overwrites.
//
//   cache[b, start + t] = rows[b, t]
//
// Shapes: rows [batch, tokens, width], cache [batch, capacity, width]; width in groups of four.

const THREADS: u32 = 64u;                                                    // @param  a power of two

alias Word = vec4f;                                                          // @param  storage of four elements
// @or f16, bf16  alias Word = vec2u;

struct Shape { items: u32, groups: u32, tokens: u32, capacity: u32, start: u32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> rows: array<Word>;
@group(0) @binding(2) var<storage, read_write> cache: array<Word>;

@compute @workgroup_size(THREADS) fn write(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let item = (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread;
  if (item >= shape.items) { return; }
  let row = item / shape.groups;
  let target_row = row / shape.tokens * shape.capacity + shape.start + row % shape.tokens;
  cache[target_row * shape.groups + item % shape.groups] = rows[item];
}
