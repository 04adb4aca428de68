DROP TABLE accelerator_key;
