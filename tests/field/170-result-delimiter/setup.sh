# A Postfix that does not know it says nothing.
if postconf -d smtp_sasl_password_result_delimiter 2>/dev/null | grep -q =; then
    sed -i 's/ \([^ :]*\):/ \1|/' "$CFG/sasl_passwd"
    postmap -c "$CFG" "hash:$CFG/sasl_passwd"
fi
