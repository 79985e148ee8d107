# What `make demo` runs: train on MNIST, bound the test images' log-likelihood, draw samples, write the report; or show the finished run.
set -eu
run=runs/demo
vaestro="$BIN/vaestro"
if [ -n "${FORCE:-}" ] || [ ! -f $run/evaluation.json ] || [ ! -f $run/samples.png ]; then
    "$vaestro" train mnist --run $run --force \
        --latent 40 --network residual:width=512,blocks=1 --batch 256 --lr 0.003 --optimizer adamw:weight_decay=0.05 --epochs 28
    "$vaestro" sample $run -n 64 &
    "$vaestro" evaluate $run --k 100
    wait $!
else
    echo "showing the finished run (make demo FORCE=1 trains again)"
    "$vaestro" info $run
fi
"$vaestro" report $run
echo
echo "open $run/report.html in a browser. Samples: $run/samples.png; bounds: $run/evaluation.json; curves: $run/metrics.jsonl"
echo "next: $vaestro evaluate $run --k 5000, or $vaestro --help"
