// The next token of each row: the likeliest of the ids that are allowed, or one of them at random.
//
//   A[r]         = { v : bit v mod 32 of allowed[r, v / 32] is set }
//   likeliest[r] = the lowest v in A[r] with the largest logit[r,v]
//   drawn[r]     = the lowest v in A[r] with  sum_{w in A[r], w <= v} p[r,w]  >  u[r] sum_{w in A[r]} p[r,w]
//
// where p[r,w] = exp((logit[r,w] - logit[r, likeliest[r]]) / temperature), which the softmax is proportional to, and u is uniform in
// [0, 1). A row without an allowed id above LOW gets NONE.
//
// Shapes: logits [rows, width] f32, width the vocabulary; allowed [rows, words] u32, words = ceil(width / 32); u, choice [rows]. One
// workgroup a row; every order is fixed. A draw walks the row in runs of whole words, one a thread: the sums of the runs in order say
// which run holds the id, and its thread walks it again.

const THREADS: u32 = 64u;                                                    // @param  a power of two
const LOW: f32 = -1e30;                                                      // below every logit
const NONE: u32 = 0xffffffffu;

struct Shape { rows: u32, width: u32, words: u32, inverseTemperature: f32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> allowed: array<u32>;
@group(0) @binding(3) var<storage, read> u: array<f32>;
@group(0) @binding(4) var<storage, read_write> choice: array<u32>;

struct Best { logit: f32, id: u32 }

var<workgroup> bests: array<Best, THREADS>;
var<workgroup> sums: array<f32, THREADS>;
var<workgroup> run: vec2f;                                                   // of the drawn id: its run, and the rest of the bound

fn rowOf(grid: Grid) -> u32 { return grid.workgroup.y * grid.count.x + grid.workgroup.x; }

fn isAllowed(row: u32, id: u32) -> bool { return ((allowed[row * shape.words + id / 32u] >> (id % 32u)) & 1u) == 1u; }

fn better(a: Best, b: Best) -> bool { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }

// The likeliest id of a row, the same in every thread.
fn likeliestOf(row: u32, thread: u32) -> Best {
  var best = Best(LOW, NONE);
  for (var id = thread; id < shape.width; id += THREADS) {
    let logit = logits[row * shape.width + id];
    if (logit > best.logit && isAllowed(row, id)) { best = Best(logit, id); }
  }
  bests[thread] = best;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half && better(bests[thread + half], bests[thread])) { bests[thread] = bests[thread + half]; }
  }
  return workgroupUniformLoad(&bests[0]);
}

@compute @workgroup_size(THREADS) fn likeliest(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let row = rowOf(grid);
  if (row >= shape.rows) { return; }
  let best = likeliestOf(row, thread);
  if (thread == 0u) { choice[row] = best.id; }
}

@compute @workgroup_size(THREADS) fn draw(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let row = rowOf(grid);
  if (row >= shape.rows) { return; }
  let best = likeliestOf(row, thread);
  if (best.id == NONE) {
    if (thread == 0u) { choice[row] = NONE; }
    return;
  }
  let length = 32u * ((shape.words + THREADS - 1u) / THREADS);
  let first = thread * length;
  let end = min(first + length, shape.width);
  var sum = 0.0;
  for (var id = first; id < end; id++) { sum += share(row, id, best.logit); }
  sums[thread] = sum;
  workgroupBarrier();
  if (thread == 0u) {
    var total = 0.0;
    for (var i = 0u; i < THREADS; i++) { total += sums[i]; }
    let bound = u[row] * total;
    var before = 0.0;
    var holder = best.id / length;                                           // where rounding takes the bound to the whole sum
    for (var i = 0u; i < THREADS; i++) {
      if (before + sums[i] > bound) { holder = i; break; }
      before += sums[i];
    }
    run = vec2f(f32(holder), bound - before);
  }
  let chosen = workgroupUniformLoad(&run);
  if (thread != u32(chosen.x)) { return; }
  var drawn = best.id;
  var walked = 0.0;
  for (var id = first; id < end; id++) {
    walked += share(row, id, best.logit);
    if (walked > chosen.y) { drawn = id; break; }
  }
  choice[row] = drawn;
}

// What an id adds to the sum: 0 where it is not allowed.
fn share(row: u32, id: u32, largest: f32) -> f32 {
  if (!isAllowed(row, id)) { return 0.0; }
  return exp(min((logits[row * shape.width + id] - largest) * shape.inverseTemperature, 0.0));
}
