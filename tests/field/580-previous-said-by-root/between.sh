ID=$(sed -n 's/^svc@a.example \([A-Z0-9]*\):.*/\1/p' $CFG/sasl_passwd)
export AWS_ACCESS_KEY_ID=AKIAFIELDAGENT000000 AWS_SECRET_ACCESS_KEY=of-no-importance
$RELAYKEY --config /tmp/agent/config.toml sync ses --previous $ID >&2 || true
