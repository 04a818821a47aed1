//! x
use concurrent_futures::*;
use std::time::*;
#[test]
fn smoke() {
    let pool = ThreadPoolExecutor::builder().max_workers(4).build().unwrap();
    for round in 0..5 {
        let n = 1_000_000;
        let t = Instant::now();
        let fs: Vec<_> = (0..n).map(|_| pool.spawn(|| ()).unwrap()).collect();
        let t1 = t.elapsed();
        for f in fs { f.result().unwrap(); }
        let t2 = t.elapsed();
        let t = Instant::now();
        for _ in 0..20000 { pool.spawn(|| ()).unwrap().result().unwrap(); }
        let rt = t.elapsed();
        eprintln!("{round}: submit {:?} total {:?} per task; round trip {:?}", t1 / n, t2 / n, rt / 20000);
    }
}
