//! Deliveries good and bad over plain connections: recorded requests, refusals, slow clients, drains.

use std::sync::Mutex;

use super::*;

#[tokio::test]
async fn recorded_requests_are_stored_and_answered() {
    let mut running = start(plain(), Timing::default()).await;
    let mut kept = running.connect().await;
    let files = ["blocking-one-event", "batch-of-20", "batch-of-400", "one-event-of-12-mb", "blocking-one-event"];
    for (file, items) in files.into_iter().zip([1, 20, 400, 3, 1]) {
        let answer = exchange(&mut kept, &recorded(&format!("{file}.raw.zst"))).await;
        assert_code(&answer, 200);
        assert!(answer.ends_with("\r\n\r\n{}"), "{answer}");
        let batch = running.batches.recv().await.unwrap();
        assert_eq!((batch.cluster.as_str(), batch.items.len()), ("default", items), "{file}");
        assert_eq!(batch.origin, Origin::Webhook);
        assert!(batch.received > 1_700_000_000_000_000 && batch.items.iter().all(|i| reject(i).is_none()));
    }
    assert!(running.metric("lapwing_events_received_total{cluster=\"default\",source=\"webhook\"} 425"));
    assert!(running.metric("lapwing_webhook_requests_total{cluster=\"default\",code=\"200\"} 5"));
    assert!(running.metric("lapwing_webhook_inflight_bytes 0"));
}

#[tokio::test]
async fn content_is_never_the_senders_problem() {
    let mut running = start(plain(), Timing::default()).await;
    for body in [&b"not json"[..], b"{\"kind\":\"EventList\",\"items\":[{\"a", b"\x00\xff", b"", b"panic"] {
        assert_code(&running.ask(&post("/audit/v1/prod", "", body)).await, 200);
        let batch = running.batches.recv().await.unwrap();
        assert_eq!((batch.cluster.as_str(), batch.items.len()), ("prod", 1));
        assert!(reject(&batch.items[0]).is_some());
    }
    assert_code(&running.ask(&post("/", "", b"{\"items\":[]}")).await, 200);
    assert!(running.batches.try_recv().is_err(), "an empty list is nothing to store");
    assert!(running.metric("lapwing_events_rejected_total{cluster=\"prod\",reason=\"not_json\"} 4"));
    assert!(running.metric("lapwing_events_rejected_total{cluster=\"prod\",reason=\"bad_body\"} 1"));
}

#[tokio::test]
async fn firehose_is_answered_in_its_own_form() {
    let mut running = start(plain(), Timing::default()).await;
    let headers = "X-Amz-Firehose-Request-Id: 4e\"d\r\n";
    let answer = running.ask(&post("/audit/v1/prod", headers, b"{\"items\":[{}]}")).await;
    assert_code(&answer, 200);
    let told =
        |answer: &str| -> serde_json::Value { serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap() };
    assert_eq!(told(&answer)["requestId"], "4e\"d");
    assert!(answer.contains("application/json") && told(&answer)["timestamp"].as_i64() > Some(1_700_000_000_000));
    assert_eq!(told(&answer)["errorMessage"], serde_json::Value::Null);
    assert_eq!(running.batches.recv().await.unwrap().items.len(), 1);
    running.refusals.0.lock().unwrap().push("the journal is full");
    let answer = running.ask(&post("/audit/v1/prod", headers, b"{\"items\":[{}]}")).await;
    assert_code(&answer, 503);
    assert_eq!(
        (&told(&answer)["requestId"], &told(&answer)["errorMessage"]),
        (&"4e\"d".into(), &"the journal is full".into())
    );
    assert!(answer.contains("application/json"), "{answer}");
}

#[tokio::test]
async fn what_is_no_delivery_is_told_so() {
    let running = start(Config { max_body: 1000, ..plain() }, Timing::default()).await;
    let get = running.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_code(&get, 405);
    assert!(get.contains("allow: POST") && get.contains("--audit-webhook-config-file"), "{get}");
    assert_code(&running.ask(&post("/", "Content-Encoding: gzip\r\n", b"{}")).await, 415);
    assert_code(&running.ask(&post("/", "Content-Encoding: identity\r\n", b"{\"items\":[]}")).await, 200);
    let large = running.ask(&post("/", "", &[b' '; 1001])).await;
    assert_code(&large, 413);
    assert!(large.contains("maxBody") && large.contains("connection: close"), "{large}");
    let chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = [&chunked[..], format!("3ea\r\n{}\r\n0\r\n\r\n", " ".repeat(1002)).as_bytes()].concat();
    assert_code(&running.ask(&body).await, 413);
    assert_code(&running.ask(format!("POST / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(17_000)).as_bytes()).await, 431);
    assert!(running.metric("lapwing_webhook_requests_total{cluster=\"default\",code=\"413\"} 2"));
}

#[tokio::test]
async fn gzip_when_asked_for() {
    let mut running = start(Config { gzip: true, ..plain() }, Timing::default()).await;
    let mut packed = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(&b"{\"items\":[{},{}]}"[..], flate2::Compression::fast());
    std::io::Read::read_to_end(&mut encoder, &mut packed).unwrap();
    assert_code(&running.ask(&post("/", "Content-Encoding: gzip\r\n", &packed)).await, 200);
    assert_eq!(running.batches.recv().await.unwrap().items.len(), 2);
    packed.truncate(packed.len() - 4);
    assert_code(&running.ask(&post("/", "Content-Encoding: gzip\r\n", &packed)).await, 200);
    let items = running.batches.recv().await.unwrap().items;
    assert_eq!(items.len(), 3, "what could be read, and a note that the end is missing");
    assert_eq!(reject(&items[2]), Some(RejectReason::BadBody));
    assert_code(&running.ask(&post("/", "Content-Encoding: br\r\n", b"x")).await, 415);
}

#[tokio::test]
async fn a_sink_in_trouble_is_503_and_the_retry_is_taken() {
    let timing = Timing { durable: Duration::from_millis(50), ..Timing::default() };
    let mut running = start(plain(), timing).await;
    running.refusals.0.lock().unwrap().extend(["never", "the journal is full"]);
    let request = post("/", "", b"{\"items\":[{}]}");
    let mut kept = running.connect().await;
    for why in ["the journal is full", "did not confirm in time"] {
        let answer = exchange(&mut kept, &request).await;
        assert_code(&answer, 503);
        assert!(answer.contains("retry-after: 3") && answer.contains(why), "{answer}");
    }
    assert!(running.batches.try_recv().is_err());
    assert_code(&exchange(&mut kept, &request).await, 200);
    assert_eq!(running.batches.recv().await.unwrap().items.len(), 1);
    assert!(running.metric("lapwing_events_received_total{cluster=\"default\",source=\"webhook\"} 1"));
}

#[tokio::test]
async fn what_is_not_stored_yet_takes_memory_too() {
    let running = start(plain(), unhurried()).await;
    running.refusals.0.lock().unwrap().push("never");
    let mut waits = running.connect().await;
    waits.write_all(&post("/", "", &[b' '; 3000])).await.unwrap();
    running.until("lapwing_webhook_inflight_bytes 3072").await;
    assert_code(&running.ask(&post("/", "", b"{\"items\":[{}]}")).await, 200);
    assert!(running.metric("lapwing_webhook_inflight_bytes 3072"), "as long as the batch before it waits");
}

#[tokio::test]
async fn no_more_bodies_are_split_at_once_than_there_are_cores() {
    let running = start(plain(), unhurried()).await;
    let address = running.address;
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..24 {
        crowd.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            exchange(&mut stream, &post("/", "", b"crowd")).await
        });
    }
    crowd.join_all().await.iter().for_each(|answer| assert_code(answer, 200));
    let most = MOST_AT_ONCE.load(Ordering::SeqCst);
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    assert!((1..=cores.min(8)).contains(&most), "{most}");
}

#[tokio::test]
async fn slow_clients_of_every_kind_are_closed() {
    let short = Duration::from_millis(60);
    let limits = Limits { first_byte: short, header: short, idle: short, ..Limits::default() };
    let running = start(plain(), Timing { limits, body: short, ..Timing::default() }).await;
    let half = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{".to_vec();
    let silent = exchange(&mut running.connect().await, b"").await;
    assert_eq!(silent, "");
    running.until("lapwing_webhook_connections_closed_total{reason=\"no_request\"} 1").await;
    assert_eq!(exchange(&mut running.connect().await, b"POST / HTTP/1.1\r\nHo").await, "");
    running.until("lapwing_webhook_connections_closed_total{reason=\"header_slow\"} 1").await;
    assert_code(&exchange(&mut running.connect().await, &half).await, 408);
    let mut idle = running.connect().await;
    assert_code(&exchange(&mut idle, &post("/", "", b"{\"items\":[]}")).await, 200);
    assert_eq!(exchange(&mut idle, b"").await, "");
    running.until("lapwing_webhook_connections_closed_total{reason=\"idle\"} 1").await;
    running.until("lapwing_webhook_connections 0").await;
}

#[tokio::test]
async fn a_dripping_header_earns_no_time() {
    let limits = Limits { header: Duration::from_millis(100), ..Limits::default() };
    let running = start(plain(), Timing { limits, ..Timing::default() }).await;
    let mut stream = running.connect().await;
    let dripped = timeout(PLENTY, async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while stream.write_all(b"P").await.is_ok() {
            tick.tick().await;
        }
    });
    assert!(dripped.await.is_ok(), "the connection was never closed");
    running.until("lapwing_webhook_connections_closed_total{reason=\"header_slow\"} 1").await;
}

#[tokio::test]
async fn too_many_connections_are_closed_at_once() {
    let config = Config { max_connections_per_address: 2, ..plain() };
    let running = start(config, Timing::default()).await;
    let mut kept = [running.connect().await, running.connect().await];
    for stream in &mut kept {
        assert_code(&exchange(stream, &post("/", "", b"{\"items\":[]}")).await, 200);
    }
    assert_eq!(exchange(&mut running.connect().await, b"").await, "");
    running.until("lapwing_webhook_connections_closed_total{reason=\"too_many_from_address\"} 1").await;
    drop(kept);
    running.until("lapwing_webhook_connections 0").await;
    assert_code(&running.ask(&post("/", "", b"{\"items\":[]}")).await, 200);
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_hand() {
    let mut running = start(plain(), unhurried()).await;
    let mut silent = running.connect().await;
    let mut idle = running.connect().await;
    assert_code(&exchange(&mut idle, &post("/", "", b"{\"items\":[]}")).await, 200);
    let mut busy = running.connect().await;
    busy.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 14\r\n\r\n").await.unwrap();
    let mut go_on = [0; 25];
    busy.read_exact(&mut go_on).await.unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100"), "the request is in hand");
    running.drain.cancel();
    assert_eq!(exchange(&mut silent, b"").await, "");
    assert_eq!(exchange(&mut idle, b"").await, "");
    assert!(TcpStream::connect(running.address).await.is_err(), "new connections are not accepted");
    assert_code(&exchange(&mut busy, b"{\"items\":[{}]}").await, 200);
    timeout(PLENTY, running.task).await.expect("the drain ends").unwrap();
    assert_eq!(running.batches.recv().await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_drain_is_bounded() {
    let limits = Limits { drain: Duration::from_millis(50), ..Limits::default() };
    let running = start(plain(), Timing { limits, ..unhurried() }).await;
    running.refusals.0.lock().unwrap().push("never");
    let mut stuck = running.connect().await;
    stuck.write_all(&post("/", "", b"{\"items\":[{}]}")).await.unwrap();
    let refusals = Arc::clone(&running.refusals);
    let taken = timeout(PLENTY, async {
        while !refusals.0.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    });
    assert!(taken.await.is_ok(), "the sink never got the batch");
    running.drain.cancel();
    timeout(PLENTY, running.task).await.expect("the drain ends").unwrap();
}

#[tokio::test]
async fn trouble_that_ended_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let answers = Mutex::new(vec![Err("full"), Ok(()), Err("full"), Err("full")]);
    let sink = move |_: Batch| std::future::ready(answers.lock().unwrap().pop().unwrap());
    let metrics = Arc::new(Metrics::new(["a"]));
    let webhook = Webhook::bind(plain(), dir.path(), Timing::default(), split, sink, metrics).await.unwrap();
    tokio::time::pause();
    let mut asked_back = Vec::new();
    for wait in [0, 60, 0, 0] {
        tokio::time::advance(Duration::from_secs(wait)).await;
        let answer = webhook.door.store("a".into(), vec![Item::Event("{}".into())]).await;
        asked_back.push((answer.status().as_u16(), answer.headers().contains_key("retry-after")));
    }
    assert_eq!(asked_back, [(503, true), (503, false), (200, false), (503, true)]);
}

#[tokio::test(start_paused = true)]
async fn strangers_do_not_fill_the_log() {
    let (seldom, start) = (Seldom::default(), Instant::now());
    let mut said = Vec::new();
    for wait in [0, 1, 8, 1, 30, 1] {
        tokio::time::advance(Duration::from_secs(wait)).await;
        said.push(seldom.now(start));
    }
    assert_eq!(said, [true, false, false, true, true, false]);
}
