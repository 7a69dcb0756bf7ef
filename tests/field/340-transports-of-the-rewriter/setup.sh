postconf -c $CFG -P "rewrite/unix/transport_maps=hash:$CFG/transport"
