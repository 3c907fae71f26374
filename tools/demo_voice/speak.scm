;; Called by corpus.py: says one text into NAME.wav and writes NAME.lab with phones (S name end) and text tokens
;; (T name start end), and NAME.hts with the labels from which hts_engine says the same as another speaker.
;; A token's span comes from the segments below its words.
(voice_cmu_us_slt_arctic_hts)

(define (word_segments word)
  "The segments of a word, in order, by way of its syllables."
  (apply append
    (mapcar
      (lambda (syllable) (item.relation.daughters syllable 'SylStructure))
      (item.relation.daughters word 'SylStructure))))

(define (speak_to text name)
  (let ((utt (utt.synth (eval (list 'Utterance 'Text text))))
        (out (fopen (string-append name ".lab") "w")))
    (utt.save.wave utt (string-append name ".wav") 'riff)
    (mapcar
      (lambda (s) (format out "S %s %f\n" (item.name s) (item.feat s "end")))
      (utt.relation.items utt 'Segment))
    (let ((labels (fopen (string-append name ".hts") "w")))
      (mapcar (lambda (s) (format labels "%s" s)) featstring_list)
      (fclose labels))
    (let ((token (utt.relation.first utt 'Token)))
      (while token
        (let ((segments (apply append (mapcar word_segments (item.relation.daughters token 'Token)))))
          (if segments
            (format out "T %s %f %f\n" (item.name token)
              (item.feat (car segments) "segment_start")
              (item.feat (car (last segments)) "end"))))
        (set! token (item.relation.next token 'Token))))
    (fclose out)))
